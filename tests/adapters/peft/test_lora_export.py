"""Folders exported as LoRA: the same logits in PEFT, the rules of vLLM and llama.cpp, the reported error."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora.conversion import convert_to_lora, save_as_lora
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import adapters
from adapters import CheckpointError, ConfigurationError, Deltas
from adapters.peft import TensorTrainConfig, export_lora
from adapters.peft.to_lora import main
from tests.adapters.peft.tiny import adapted, bert, gpt2, llama, logits, t5

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BASES = {
    t5: ["wi", "q"],
    llama: ["q_proj", "down_proj"],
    bert: ["query", "intermediate.dense"],
    gpt2: ["c_attn", "c_fc"],
}
QV = {"target_modules": ["q_proj", "v_proj"]}
SETTINGS = {
    "different matrix ranks": {"raw_shape": [[1, 16], [16, 1]], **QV, "rank_pattern": {"v_proj": 1}},
    "a ring": {"format": "tensor_ring", "scaling": 2.0},
    "a Tucker decomposition": {"format": "tucker", **QV},
    "principal": {"init": "principal"},
    "shared cores": {"shared_cores": [0], "d": 3},
    "a basis": {"format": "tensor_basis"},
    "MetaTT": {"modes": ["in", "layer", "matrix", "out"], **QV},
}


@pytest.fixture
def saved(tmp_path):
    """A function from a base and fields to an adapted model and the folder it was saved to; the base is saved too."""

    def make(base=llama, **fields):
        base().save_pretrained(tmp_path / "base")
        model = base()
        model.name_or_path = str(tmp_path / "base")
        model = adapted(model, **{"rank": 2, **fields})
        model.save_pretrained(tmp_path / "tuner")
        return model, tmp_path / "tuner"

    return make


def assert_same(folder: Path, base, expected: torch.Tensor):
    loaded = PeftModel.from_pretrained(base(), folder).eval()
    assert loaded.peft_config["default"].peft_type == "LORA"
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)


def assert_served(folder: Path):
    """Check what vLLM and llama.cpp demand of a folder, as read in their source.

    vLLM: ``parse_fine_tuned_lora_name`` (vllm/lora/utils.py) takes base_model.model. and one of two ends off a name,
    and refuses others; ``PEFTHelper`` (vllm/lora/peft_helper.py) needs r, lora_alpha and target_modules, and refuses
    biases, modules_to_save, DoRA and aLoRA; older versions scale all linears by lora_alpha / r, and take a string in
    target_modules for a regular expression that ends with names in brackets. llama.cpp: convert_lora_to_gguf.py takes
    the same names; the scale is lora_alpha over the columns of B.
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    assert isinstance(config["target_modules"], list)
    assert config["bias"] == "none"
    refused = ("modules_to_save", "use_dora", "use_rslora", "lora_bias", "alora_invocation_tokens", "layer_replication")
    assert not any(config.get(key) for key in (*refused, "rank_pattern", "alpha_pattern"))
    assert 0 < config["r"] == config["lora_alpha"]
    factors = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        assert name.startswith("base_model.model.")
        path, _, end = name.removeprefix("base_model.model.").partition(".lora_")
        assert end in ("A.weight", "B.weight")
        assert any(path == target or path.endswith(f".{target}") for target in config["target_modules"])
        factors.setdefault(path, {})[end[0]] = tensor
    for pair in factors.values():
        assert pair["A"].shape[0] == pair["B"].shape[1] == config["r"]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_each_architecture_computes_the_same_with_the_exported_lora(base, saved, tmp_path):
    model, folder = saved(base, target_modules=BASES[base])
    report = export_lora(folder, tmp_path / "lora")
    assert report.relative_error < 1e-12
    assert_served(tmp_path / "lora")
    assert_same(tmp_path / "lora", base, logits(model))
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(BASES[base])
    assert config["base_model_name_or_path"] == str(tmp_path / "base")


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # PEFT's converter does not set it for GPT-2
@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_peft_converts_a_live_model(base, tmp_path):
    model = adapted(base(), rank=2, target_modules=BASES[base])
    save_as_lora(tmp_path, model, rank=16)
    assert_same(tmp_path, base, logits(model))


@pytest.mark.parametrize(
    "fields", [{"core_activation": "gelu"}, {"delta_bias": "dense"}, {"shared_cores": [0], "d": 3}], ids=str
)
def test_peft_refuses_what_is_no_matrix_of_its_linear(fields):
    with pytest.raises(TypeError, match="do not support LoRA conversion"):
        convert_to_lora(adapted(llama(), rank=2, **fields), rank=16)


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_format_computes_the_same(setting, saved, tmp_path):
    model, folder = saved(**SETTINGS[setting])
    export_lora(folder, tmp_path / "lora")
    assert_served(tmp_path / "lora")
    assert_same(tmp_path / "lora", llama, logits(model))


def test_different_ranks_are_filled_with_zeros(saved, tmp_path):
    _, folder = saved(**SETTINGS["different matrix ranks"])
    export_lora(folder, tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.{}_proj.lora_{}.weight"
    assert [int(tensors[name.format(kind, "A")].any(dim=1).sum()) for kind in "qv"] == [2, 1]
    assert [int(tensors[name.format(kind, "B")].any(dim=0).sum()) for kind in "qv"] == [2, 1]


def test_a_smaller_rank_has_the_reported_error_of_the_best_approximation(saved, tmp_path):
    _, folder = saved(rank=3)
    report = export_lora(folder, tmp_path / "lora", rank=2)
    before, after = Deltas.read(folder), Deltas.read(tmp_path / "lora")
    for path, train in before.items():
        values = torch.linalg.svdvals(train.full())
        assert report.linears[path].error == pytest.approx(values[2:].norm().item(), rel=1e-9)
        assert torch.dist(train.full(), after[path].full()).item() == pytest.approx(
            report.linears[path].error, rel=1e-5
        )
    assert 0.01 < report.relative_error == pytest.approx(before.distance(after) / before.norm(), rel=1e-5)
    assert f"relative error of the deltas {report.relative_error:.1e}" in (tmp_path / "lora" / "README.md").read_text()


def test_a_base_that_is_not_found_is_needed_for_shared_cores_only(saved, tmp_path):
    model, folder = saved(target_modules=r".*\.q_proj")
    config = folder / "adapter_config.json"
    nowhere = json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(tmp_path / "nowhere")})
    config.write_text(nowhere)
    export_lora(folder, tmp_path / "lora")
    assert_served(tmp_path / "lora")
    assert_same(tmp_path / "lora", llama, logits(model))
    with pytest.raises(CheckpointError, match="cannot be found: pass its path or name as base"):
        export_lora(folder, tmp_path / "other", base=str(tmp_path / "elsewhere"))

    model, folder = saved(**SETTINGS["MetaTT"])
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(CheckpointError, match="cannot be found: pass its path or name as base"):
        export_lora(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    export_lora(folder, tmp_path / "other", base=str(tmp_path / "base"))
    assert_same(tmp_path / "other", llama, logits(model))


@pytest.mark.parametrize("modes", [None, ["in", "task", "matrix", "out"]], ids=str)
def test_the_deltas_of_one_task_are_exported(modes, tiny_t5, logits, tmp_path):
    fields = {"kind": "tt_lora", "rank": 2, "target_modules": ["q", "v"], "modes": modes}
    model = tiny_t5(ours=False)
    for task in ("cola", "rte"):
        adapters.attach(model, fields, task)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapters.save(model, tmp_path / "native")
    for task in ("cola", "rte"):
        adapters.set_active_task(model, task)
        export_lora(tmp_path / "native", tmp_path / task, task=task)
        assert_served(tmp_path / task)
        loaded = PeftModel.from_pretrained(tiny_t5(ours=False), tmp_path / task).eval()
        torch.testing.assert_close(logits(loaded), logits(model.eval()), rtol=1e-5, atol=1e-5)


REFUSED = {
    "a trained bias": ({"delta_bias": "dense"}, {}, CheckpointError, "read LoRA without biases; got .*trained bias at"),
    "an activation": ({"core_activation": "gelu"}, {}, CheckpointError, "linear adapters; got core_activation"),
    "a whole module": ({"modules_to_save": ["lm_head"]}, {}, CheckpointError, "deltas of linears only; got .*lm_head"),
    "a rank of zero": ({}, {"rank": 0}, ConfigurationError, "must be a positive integer; got 0"),
    "a task": ({}, {"task": "rte"}, CheckpointError, "one adapter, for all tasks; got task 'rte'"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_a_refused_export_writes_nothing(case, saved, tmp_path):
    fields, arguments, error, sentence = REFUSED[case]
    _, folder = saved(**fields)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=sentence):
        export_lora(folder, tmp_path / "lora", **arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_a_value_that_is_not_finite_is_refused(saved, tmp_path):
    _, folder = saved(**QV)
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values())).fill_(torch.nan)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"finite values; got an infinity or NaN .* \(in .*tuner\)"):
        export_lora(folder, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_bias_of_zeros_is_left_out(saved, tmp_path):
    get_peft_model(llama(), TensorTrainConfig(rank=2, delta_bias="dense", **QV)).save_pretrained(tmp_path / "untrained")
    export_lora(tmp_path / "untrained", tmp_path / "lora")
    assert_served(tmp_path / "lora")


def test_the_command_prints_the_report_or_why_it_refuses(saved, tmp_path, capsys):
    _, folder = saved(**QV)
    assert main([str(folder), str(tmp_path / "lora"), "--rank", "1"]) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("Approximation of deltas", "norm", "total"))
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["r"] == 1
    assert main([str(folder), str(tmp_path / "lora")]) == 2
    assert "Refused: The destination must be a new or empty folder" in capsys.readouterr().err


def other_llama(**fields):
    return LlamaForCausalLM(LlamaConfig(**{**llama().config.to_dict(), **fields}))


OTHER_BASES = {
    "of another class": (gpt2, "LlamaForCausalLM is no class of the model type 'gpt2'"),
    "with fewer layers": (lambda: other_llama(num_hidden_layers=1), r"at model\.layers\.1\..*, and no linear there"),
    "of other sizes": (lambda: other_llama(hidden_size=32), r"got \(16, 16\) at .*, and a linear of \(16, 32\)"),
}


@pytest.mark.parametrize("setting", [QV, SETTINGS["MetaTT"]], ids=["a train for each", "one train"])
@pytest.mark.parametrize("case", OTHER_BASES)
def test_a_base_that_the_deltas_do_not_fit_is_refused(case, setting, saved, tmp_path):
    base, sentence = OTHER_BASES[case]
    _, folder = saved(**setting)
    base().save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=sentence if setting is QV else "base"):
        export_lora(folder, tmp_path / "lora", base=str(tmp_path / "other"))
    assert not (tmp_path / "lora").exists()


def test_a_folder_without_deltas_is_refused(saved, tmp_path):
    _, folder = saved(**QV)
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="at least one delta; got none"):
        export_lora(folder, tmp_path / "lora")


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_the_weights_that_peft_saves_beside_a_head_are_refused_with_what_leaves_them_out(saved, tmp_path):
    model, folder = saved(target_modules=["q_proj", "lm_head"])
    with pytest.raises(CheckpointError, match=r"save_pretrained\(folder, save_embedding_layers=False\)"):
        export_lora(folder, tmp_path / "lora")
    model.save_pretrained(folder, save_embedding_layers=False)
    export_lora(folder, tmp_path / "lora")
    assert_served(tmp_path / "lora")
    assert_same(tmp_path / "lora", llama, logits(model))
