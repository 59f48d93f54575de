"""Folders of our PEFT tuner and of LoRA: read without PEFT, combined, converted to LoRA, and loaded by PEFT."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import adapters
from adapters import CheckpointError, Deltas
from adapters.peft import TensorTrainConfig

from .conftest import scrambled

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # PEFT computes with a bias beside a linear without one, cannot merge it, and takes its shape for a shard's.
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:.*LoRA tensor.* have invalid shape"),
]

TOKENS = torch.arange(1, 9).reshape(2, 4)


def llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, initializer_range=0.3, num_attention_heads=2, num_key_value_heads=2)
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=TOKENS).logits


@pytest.fixture
def saved(tmp_path):
    """A function from a configuration and a seed to an adapted Llama and the folder it was saved to."""

    def make(config, seed=1, base=llama):
        model = scrambled(get_peft_model(base(), config), seed)
        folder = tmp_path / f"peft_{seed}"
        model.save_pretrained(folder)
        return model, folder

    return make


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=2e-5)


def loaded(folder):
    return PeftModel.from_pretrained(llama(), folder).eval()


def expected(with_dense, *summands):
    """The logits of a Llama with w times the dense deltas of each (deltas, w) added to its weights."""
    model = llama()
    for deltas, weight in summands:
        matrices = {path: weight * train.full() for path, train in deltas.items()}
        model = with_dense(model, matrices, {path: weight * bias for path, bias in deltas.biases.items()})
    return logits(model)


TUNED = {
    "the default": {"rank": 3},
    "a scale and a dense bias": {
        "rank": 2,
        "scaling": 0.5,
        "delta_bias": "dense",
        "target_modules": ["q_proj", "up_proj"],
    },
    "a tt bias": {"rank": 2, "delta_bias": "tt", "target_modules": r".*\.(down|o)_proj"},
    "factors": {"rank": 3, "raw_shape": [[1, 16], [16, 1]], "target_modules": ["q_proj", "v_proj"]},
    "a canonical decomposition": {"rank": 3, "format": "cp"},
    "a Tucker decomposition": {"rank": 2, "format": "tucker", "target_modules": ["up_proj", "down_proj"]},
    "a ring": {"rank": 2, "format": "tensor_ring", "scaling": 2.0},
    "ranks by place": {"rank": 2, "d": 2, "rank_pattern": {"v_proj": 3}, "target_modules": ["q_proj", "v_proj"]},
    "a start from the weight": {"rank": 2, "init": "principal"},
    "a disabled and a frozen core": {"rank": 2, "d": 3, "disabled_cores": [1], "frozen_cores": [0]},
}
LORAS = {
    "plain": {"r": 3},
    "a scale": {"r": 2, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]},
    "rank-stabilised": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "ranks and scales by place": {
        "r": 3,
        "lora_alpha": 12,
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"1.self_attn.v_proj": 5, "v_proj": 7},
    },
    "with a bias": {"r": 2, "lora_bias": True},
}
FOLDERS = [
    *(pytest.param(TensorTrainConfig(**fields), id=f"tuner, {name}") for name, fields in TUNED.items()),
    *(pytest.param(LoraConfig(**fields), id=f"LoRA, {name}") for name, fields in LORAS.items()),
]


WRITTEN = [
    *(TensorTrainConfig(**TUNED[name]) for name in ("the default", "a tt bias", "factors", "ranks by place")),
    *(LoraConfig(**LORAS[name]) for name in ("a scale", "ranks and scales by place", "with a bias")),
]
"""What is written in different ways; formats and scales differ only in how they are read."""


@pytest.mark.parametrize("config", FOLDERS)
def test_the_deltas_are_those_of_the_model(saved, config, with_dense):
    model, folder = saved(config)
    assert close(logits(model), expected(with_dense, (Deltas.read(folder), 1)))


@pytest.mark.parametrize("config", WRITTEN, ids=lambda config: config.peft_type)
def test_a_combination_computes_the_dense_one(saved, config, tmp_path, with_dense):
    folders = [saved(config, seed)[1] for seed in (1, 2)]
    adapters.combine(folders, [1.5, -0.5], output=tmp_path / "out")
    x, y = map(Deltas.read, folders)
    model = loaded(tmp_path / "out")
    assert type(model.peft_config["default"]) is type(config)
    assert close(logits(model), expected(with_dense, (x, 1.5), (y, -0.5)))


@pytest.mark.parametrize("config", WRITTEN, ids=lambda config: config.peft_type)
def test_an_adapter_written_as_lora_computes_the_same(saved, config, tmp_path):
    model, folder = saved(config)
    Deltas.read(folder).write_lora(tmp_path / "lora", like=folder)
    written = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert written["peft_type"] == "LORA"
    assert written["lora_alpha"] == written["r"]
    assert close(logits(loaded(tmp_path / "lora")), logits(model))


def test_the_live_model_has_the_deltas_of_its_folder(saved):
    model, folder = saved(TensorTrainConfig(rank=2, scaling=0.5, delta_bias="dense"))
    live, read = Deltas.of(model), Deltas.read(folder)
    assert list(live) == list(read)
    assert live.distance(read) < 1e-12 * read.norm()


@pytest.mark.parametrize(
    "fields",
    [
        {"modes": ["in", "layer", "matrix", "out"]},
        {"shared_cores": [0], "d": 3, "delta_bias": "dense"},
        {"format": "tensor_basis"},
    ],
    ids=str,
)
def test_shared_cores_are_read_from_the_live_model(saved, fields, tmp_path, with_dense):
    model, folder = saved(TensorTrainConfig(rank=2, target_modules=["q_proj", "v_proj"], **fields))
    live = Deltas.of(model)
    assert len(live) == 4
    assert close(logits(model), expected(with_dense, (live, 1)))
    live.write(tmp_path / "again", like=folder)
    assert close(logits(loaded(tmp_path / "again")), logits(model))
    with pytest.raises(CheckpointError, match=r"Deltas\.of\(model\)"):
        Deltas.read(folder)


def test_adapters_of_different_linears_are_combined(saved, tmp_path, with_dense):
    _, a = saved(TensorTrainConfig(rank=2, target_modules=["q_proj", "down_proj"]), 1)
    _, b = saved(TensorTrainConfig(rank=2, target_modules=["q_proj", "up_proj"], layers_to_transform=[1]), 2)
    adapters.combine([a, b], [1, 1], output=tmp_path / "out")
    assert len(Deltas.read(tmp_path / "out")) == 4 + 1
    assert close(logits(loaded(tmp_path / "out")), expected(with_dense, (Deltas.read(a), 1), (Deltas.read(b), 1)))


def test_a_combination_has_the_sample_of_its_base_if_it_has_the_same_linears(saved, tmp_path, caplog):
    """A sample of other linears would call the same base another one."""
    (_, a), (_, b) = (saved(TensorTrainConfig(rank=2, target_modules=["q_proj"]), seed) for seed in (1, 2))
    _, c = saved(TensorTrainConfig(rank=2, target_modules=["q_proj", "v_proj"]), 3)
    text = (a / "base_weights.json").read_text()
    for folders, output, kept in (([a, b], tmp_path / "out", text), ([a, b], a, text), ([b, c], b, None)):
        adapters.combine(folders, output=output)
        sample = output / "base_weights.json"
        assert (sample.read_text() if sample.exists() else None) == kept
        loaded(output)
    assert caplog.text == ""

    _, d = saved(TensorTrainConfig(rank=2, target_modules=["q_proj"]), 4, base=lambda: llama().apply(negate))
    adapters.combine([a, d], output=tmp_path / "mixed")
    assert f"got {d}, which was trained on a base with other weights than {a}" in caplog.text


@torch.no_grad()
def negate(module):
    for parameter in module.parameters(recurse=False):
        parameter.neg_()


@pytest.mark.parametrize("act", [adapters.compare, lambda folders: adapters.combine(folders, output=folders[0])])
def test_adapters_of_two_bases_are_not_combined(saved, act):
    folders = [saved(LoraConfig(r=2, target_modules=["q_proj"]), seed)[1] for seed in (1, 2, 3)]
    for folder, base in zip(folders, ("a/base", None, "another/base"), strict=True):
        edit_config(base_model_name_or_path=base)(folder)
    act(folders[:2])
    act(folders[1:])
    edit_config(base_model_name_or_path="a/base")(folders[0])
    before = (folders[0] / "adapter_model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"of the same base.*'a/base'.*'another/base'"):
        act(folders)
    assert (folders[0] / "adapter_model.safetensors").read_bytes() == before


def test_a_card_of_peft_loses_only_the_section_of_the_tuner(saved):
    _, folder = saved(TensorTrainConfig(rank=2, target_modules=["q_proj"]))
    card = folder / "README.md"
    card.write_text(card.read_text() + "\n## Notes\n\nMine.\n")
    before = card.read_text()
    adapters.combine([folder], [2], output=folder)
    start, end = (before.index(heading) for heading in ("## Tensor-train adapter", "### Framework versions"))
    assert card.read_text() == before[:start] + before[end:]


def test_lora_is_a_train_of_its_two_factors(saved):
    _, folder = saved(LoraConfig(r=3, lora_alpha=12, target_modules=["down_proj"]))
    tensors = load_file(folder / "adapter_model.safetensors")
    train = Deltas.read(folder)["model.layers.0.mlp.down_proj"]
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_{}.weight"
    assert train.raw_shape == ((1, 16), (24, 1))
    assert torch.equal(train.cores[0][0, 0].T.float(), tensors[name.format("A")])
    torch.testing.assert_close(train.cores[1][..., 0, 0].T.float(), 4 * tensors[name.format("B")])


def test_lora_is_written_at_the_matrix_rank(saved, tmp_path):
    _, folder = saved(LoraConfig(r=3, target_modules=["q_proj"]))
    x = Deltas.read(folder)
    total = 2 * x - 0.5 * x
    assert {train.ranks for train in total.values()} == {(1, 6, 1)}
    assert {train.ranks for train in total.to_low_rank().values()} == {(1, 3, 1)}
    total.write_lora(tmp_path / "lora")
    total.write(tmp_path / "like", like=folder)
    for name in ("lora", "like"):
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["r"] == 3
        assert Deltas.read(tmp_path / name).distance(total) < 1e-6 * total.norm()


def test_a_sum_of_loras_has_at_most_the_rank_of_its_linear(saved, tmp_path):
    folders = [saved(LoraConfig(r=12, target_modules=["q_proj"]), seed)[1] for seed in (1, 2)]
    adapters.combine(folders, [1, 1], output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 16


def test_lora_becomes_a_tensor_train_with_the_reported_error(saved, tmp_path, with_dense):
    model, lora = saved(LoraConfig(r=2, target_modules=["q_proj", "up_proj"]), 1)
    _, tuner = saved(TensorTrainConfig(rank=2, d=2, target_modules=["q_proj", "up_proj"]), 2)
    x = Deltas.read(lora)
    exact, report = x.reshaped(d=2)
    assert report.relative_error < 1e-13
    exact.write(tmp_path / "exact", like=tuner)
    assert close(logits(loaded(tmp_path / "exact")), logits(model))
    near, report = x.reshaped(d=2, max_rank=3)
    near.write(tmp_path / "near", like=tuner)
    written = Deltas.read(tmp_path / "near")
    assert max(max(train.ranks) for train in written.values()) == 3
    assert written.distance(x) == pytest.approx(report.error, rel=1e-4)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=3, fan_in_fan_out=True, target_modules=["c_attn", "c_fc"]),
        TensorTrainConfig(rank=3, target_modules=["c_attn", "c_fc"]),
    ],
    ids=lambda config: config.peft_type,
)
def test_deltas_of_layers_with_a_transposed_weight_are_out_by_in(saved, config, tmp_path):
    """GPT-2's Conv1D has W (in, out); a delta is always (out, in)."""

    def gpt2():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=8)).eval()

    model, folder = saved(config, base=gpt2)
    x = Deltas.read(folder)
    assert x["transformer.h.0.attn.c_attn"].shape == (48, 16)
    x.write(tmp_path / "again", like=folder)
    x.write_lora(tmp_path / "lora", like=folder)
    for name in ("again", "lora"):
        assert close(logits(PeftModel.from_pretrained(gpt2(), tmp_path / name).eval()), logits(model))


def test_truncated_factors_are_optimal(saved, tmp_path):
    """Eckart-Young, by singular values of the dense deltas."""
    _, folder = saved(TensorTrainConfig(rank=4, d=2, target_modules=["q_proj"]))
    x = Deltas.read(folder)
    cut, report = x.to_low_rank().round(max_rank=3)
    lost = [torch.linalg.svdvals(train.full())[3:].norm().item() ** 2 for train in x.values()]
    assert report.error == pytest.approx(sum(lost) ** 0.5, rel=1e-9)
    cut.write_lora(tmp_path / "lora", like=folder)
    assert load_file(tmp_path / "lora" / "adapter_model.safetensors").popitem()[1].shape in ((3, 16), (16, 3))
    assert Deltas.read(tmp_path / "lora").distance(x) == pytest.approx(report.error, rel=1e-5)


def test_a_native_adapter_becomes_a_lora_of_the_same_t5(native, tiny_t5, tmp_path, batch):
    model, folder = native({"kind": "tt_lora", "rank": 2, "delta_bias": "dense"})
    Deltas.read(folder).write_lora(tmp_path / "lora")
    base = tiny_t5(ours=False)
    base.load_state_dict(tiny_t5().state_dict())
    with torch.no_grad():
        lora = PeftModel.from_pretrained(base, tmp_path / "lora").eval()
        assert close(lora(**batch).logits, model(**batch).logits)


def test_equal_deltas_are_equal_bytes(saved, tmp_path):
    _, folder = saved(TensorTrainConfig(rank=2, target_modules=["q_proj"]))
    x = Deltas.read(folder)
    for name in ("first", "second"):
        x.write(tmp_path / name, like=folder)
        x.write_lora(tmp_path / f"{name}_lora", like=folder)
    for kind in ("", "_lora"):
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            first = (tmp_path / f"first{kind}" / file).read_bytes()
            assert first == (tmp_path / f"second{kind}" / file).read_bytes()


def edit_config(**changes):
    def edit(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def edit_tensors(change):
    def edit(folder):
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return edit


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
DAMAGED_LORA = {
    "DoRA": (edit_config(use_dora=True), "use_dora=True"),
    "another method": (edit_config(peft_type="LOHA"), "'LOHA'"),
    "an initialisation that changes the base": (edit_config(init_lora_weights="pissa_niter_4"), "pissa_niter_4"),
    "LoRA of Parameters": (edit_config(target_parameters=["mlp.experts.down_proj"]), "mlp.experts.down_proj"),
    "activated LoRA": (edit_config(alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    "a head": (edit_tensors(lambda t: t.update({"base_model.model.head.weight": torch.ones(2, 2)})), "head.weight"),
    "magnitudes": (
        edit_tensors(lambda t: t.update({A.replace("A.weight", "magnitude_vector"): torch.ones(16)})),
        "magnitude_vector",
    ),
    "a missing factor": (edit_tensors(lambda t: t.pop(A)), "layers.0.self_attn.q_proj"),
    "factors of different ranks": (
        edit_tensors(lambda t: t.update({A: torch.ones(5, 16)})),
        "layers.0.self_attn.q_proj",
    ),
    "a convolution": (edit_tensors(lambda t: t.update({A: torch.ones(2, 16, 1, 1)})), "layers.0.self_attn.q_proj"),
}
CORE = "base_model.model.model.layers.0.self_attn.q_proj.tt_lora_delta.linear.cores.1"
DAMAGED_TUNER = {
    "an activation": (edit_config(core_activation="gelu"), "core_activation='gelu'"),
    "a field of another type": (edit_config(rank="two"), "'rank'"),
    "another rank": (edit_config(rank=3), "cores.0"),
    "a missing core": (edit_tensors(lambda t: t.pop(CORE)), "cores.1"),
    "a core without factors": (edit_tensors(lambda t: t.update({CORE: torch.ones(2)})), "cores.1"),
}


@pytest.mark.parametrize("damage", [*DAMAGED_LORA, *DAMAGED_TUNER])
def test_an_unsupported_adapter_is_reported(saved, damage):
    edit, named = (DAMAGED_LORA | DAMAGED_TUNER)[damage]
    plain = LoraConfig(r=2, target_modules=["q_proj"])
    tuned = TensorTrainConfig(rank=2, d=2, target_modules=["q_proj"])
    _, folder = saved(plain if damage in DAMAGED_LORA else tuned)
    edit(folder)
    with pytest.raises(CheckpointError) as error:
        Deltas.read(folder)
    assert named in str(error.value)


def test_other_trained_modules_are_reported_by_name(saved):
    _, folder = saved(TensorTrainConfig(rank=2, target_modules=["q_proj"]))
    edit_tensors(lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2, 2)}))(folder)
    with pytest.raises(CheckpointError, match=r"^Algebra supports deltas of linears only; got .*lm_head"):
        Deltas.read(folder)


def test_a_task_is_not_supported_in_a_folder_of_peft(saved):
    _, folder = saved(LoraConfig(r=2))
    with pytest.raises(CheckpointError, match="task 'a'"):
        Deltas.read(folder, "a")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LoraConfig(r=2, target_modules=["q_proj"]), r"got a Linear at base_model.*layers\.0\.self_attn\.q_proj"),
        (
            TensorTrainConfig(rank=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
            r"ModulesToSaveWrapper at base_model\.model\.lm_head",
        ),
    ],
    ids=lambda value: getattr(value, "peft_type", ""),
)
def test_other_adapters_in_a_live_model_are_reported(saved, config, named):
    model, _ = saved(config)
    with pytest.raises(adapters.ConfigurationError, match=named):
        Deltas.of(model)


def test_disabled_adapters_have_no_deltas(saved):
    model, folder = saved(TensorTrainConfig(rank=2, target_modules=["q_proj"]))
    with model.disable_adapter(), pytest.raises(adapters.ConfigurationError, match="with none active"):
        Deltas.of(model)
    assert Deltas.of(model).distance(Deltas.read(folder)) < 1e-12
