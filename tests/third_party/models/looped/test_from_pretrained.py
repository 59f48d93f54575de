"""Pretrained models as loops: exact at full rank, the best deltas of a rank, gradients of a dense model, folders."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTJConfig

import adapters
from adapters import ConfigurationError
from adapters.factorized.folders import load_model
from seq2seq.causal.decoder import load_causal_model
from tests.adapters.models import batch_for, logits, tiny
from third_party.models.looped import loop
from third_party.models.looped.shared_linear import SharedLinear

LAYERS = 4
FULL = {"rank": 10**6}
DELTAS = {"tensor_train": {"rank": 3}, "low_rank": {"rank": 3, "format": "low_rank"}, "none": None}


def pretrained(name):
    """Four layers whose norms and biases, too, have values of their own."""
    model = tiny(name, **{{"gpt2": "n_layer", "llama": "num_hidden_layers"}[name]: LAYERS})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def weights(model):
    """The dense weights (out, in) by path, of a looped model W + T."""
    found = {path: m for path, m in model.named_modules() if isinstance(m, SharedLinear)}
    return {
        path: m.shared_weight() if m.delta is None else m.shared_weight() + m.delta.full() for path, m in found.items()
    }


@pytest.fixture(params=["gpt2", "llama"])
def name(request):
    return request.param


@pytest.mark.parametrize("shared", ["mean", 0, 1])
@pytest.mark.parametrize("n_layer", [1, 2])
@pytest.mark.parametrize("format", ["tensor_train", "low_rank"])
def test_it_is_exact_at_full_rank(name, format, n_layer, shared):
    model = pretrained(name)
    before = logits(model, name)
    assert loop(model, n_layer, FULL | {"format": format}, shared) is model
    assert (logits(model, name) - before).abs().max() < 1e-4 * before.abs().max()
    assert model.loop_report.kept == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("format", ["tensor_train", "low_rank"])
def test_float64_is_exact_in_float64(name, format):
    model = pretrained(name).double()
    before = logits(model, name)
    loop(model, 2, FULL | {"format": format})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert (logits(model, name) - before).abs().max() < 1e-12 * before.abs().max()


@pytest.mark.parametrize("n_layer", [1, 2])
def test_a_low_rank_keeps_the_largest_singular_values(name, n_layer):
    """The energies against torch's SVD of the residuals; depth l uses block l mod n_layer."""
    model, original = pretrained(name), pretrained(name)
    report = loop(model, n_layer, DELTAS["low_rank"]).loop_report
    rows = {row.path: row for row in report.linears}
    stack, last = ("transformer.h", "mlp.c_fc") if name == "gpt2" else ("model.layers", "mlp.up_proj")
    for depth in range(LAYERS):
        same = [k for k in range(LAYERS) if k % n_layer == depth % n_layer]
        dense = {k: original.get_submodule(f"{stack}.{k}.{last}").weight.double() for k in same}
        residual = dense[depth] - sum(dense.values()) / len(dense)
        values = torch.linalg.svdvals(residual).square()
        row = rows[f"{stack}.{depth}.{last}"]
        expected = dense[depth].square().sum().item(), values.sum().item(), values[3:].sum().item()
        assert (row.weight, row.residual, row.error) == pytest.approx(expected, rel=1e-4)
    assert 0 < report.kept < 1
    assert 0 < report.error < 1


def test_more_rank_keeps_more():
    kept = [loop(pretrained("llama"), 1, {"rank": rank}).loop_report.kept for rank in (1, 2, 4, 8, 24)]
    assert kept == sorted(kept)
    assert kept[0] < 0.5 * kept[-1]


@pytest.mark.parametrize("deltas", DELTAS.values(), ids=DELTAS)
def test_parameters_in_closed_form(name, deltas):
    n_layer, model = 2, pretrained(name)
    dense = {"gpt2": [(72, 24), (24, 24), (96, 24), (24, 96)], "llama": [*[(24, 24), (12, 24)] * 2, *[(48, 24)] * 3]}[
        name
    ]
    block = sum(out * into for out, into in dense)
    before = sum(p.numel() for p in model.parameters())
    report = loop(model, n_layer, deltas).loop_report
    extra = sum(row.parameters for row in report.linears)
    if deltas == DELTAS["low_rank"]:
        assert extra == LAYERS * sum(3 * (out + into) for out, into in dense)
    assert (extra == 0) == (deltas is None)
    assert report.parameters_before == LAYERS * block
    assert report.parameters_after == n_layer * block + extra
    assert before - sum(p.numel() for p in model.parameters()) == report.parameters_before - report.parameters_after


@pytest.mark.parametrize("deltas", DELTAS.values(), ids=DELTAS)
def test_outputs_and_gradients_are_those_of_the_dense_model(name, deltas):
    """In float64: logits, and gradients of shared weights (the sum over depths), cores, norms and biases."""
    dense, model = pretrained(name).double(), loop(pretrained(name), 2, deltas).double()
    merged = weights(model)
    with torch.no_grad():
        for path, weight in merged.items():
            linear = dense.get_submodule(path)
            linear.weight.copy_(weight.T if name == "gpt2" else weight)
    inputs = batch_for(name)
    losses = [m(**inputs, labels=inputs["input_ids"]).loss for m in (model, dense)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    surrogate = 0.0
    for path, weight in merged.items():
        gradient = dense.get_submodule(path).weight.grad
        surrogate = surrogate + (weight * (gradient.T if name == "gpt2" else gradient)).sum()
    surrogate.backward()
    for n, gradient in found.items():
        path = n.partition(".delta.")[0].removesuffix(".weight")
        is_shared = path in merged
        expected = model.get_parameter(n).grad if is_shared else dense.get_parameter(n).grad
        torch.testing.assert_close(gradient, expected, msg=n)


@pytest.mark.parametrize("deltas", DELTAS.values(), ids=DELTAS)
def test_a_folder_gives_the_same_model(name, deltas, tmp_path):
    model = loop(pretrained(name), 2, deltas)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert torch.equal(logits(loaded, name), logits(model, name))
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {n for n, _ in model.named_parameters()}
    loaded.save_pretrained(tmp_path / "again")
    files = [(folder / "config.json").read_text() for folder in (tmp_path, tmp_path / "again")]
    assert files[0] == files[1]
    assert json.loads(files[0])["quantization_config"]["n_layer"] == 2


def test_a_folder_keeps_the_tables_that_are_not_saved(tmp_path):
    """GPT-J computes its positions when it is made, in a module whose linears are shared."""
    sizes = {"n_layer": 4, "n_embd": 16, "n_head": 2, "vocab_size": 32, "rotary_dim": 4, "n_positions": 16}
    ids = torch.arange(8)[None]
    model = loop(AutoModelForCausalLM.from_config(GPTJConfig(**sizes)).eval(), 2, {"rank": 3})
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


def test_a_model_in_16_bits_reloads_as_itself(name, tmp_path):
    pretrained(name).save_pretrained(tmp_path / "dense")
    model = loop(AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.bfloat16), 2, {"rank": 3})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path), name), logits(model, name))


def test_random_weights_are_shared_as_the_folder_says(name, tmp_path):
    loop(pretrained(name), 2, {"rank": 3}).save_pretrained(tmp_path)
    model, again = (load_causal_model(str(tmp_path), "float32", "key", random) for random in (True, False))
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in again.named_parameters()}


def test_a_command_refuses_a_model_that_lacks_weights(tmp_path):
    loop(pretrained("llama"), 2, {"rank": 3}).save_pretrained(tmp_path / "looped")
    config = json.loads((tmp_path / "looped" / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "looped" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match=r"14 of its weights are missing and would be random"):
        load_model(str(tmp_path / "looped"))


def test_generation_has_a_cache(name):
    model, ids = loop(pretrained(name), 1, {"rank": 2}), batch_for(name)["input_ids"]
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


def test_copies_are_independent(name):
    model = loop(pretrained(name), 1, {"rank": 2})
    other, before = copy.deepcopy(model), logits(model, name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(logits(model, name), before)
    assert not logits(other, name).any()


def test_bf16_is_near_float32(name):
    model = loop(pretrained(name), 1, {"rank": 2})
    before = logits(model, name)
    looped = loop(pretrained(name).bfloat16(), 1, {"rank": 2})
    for other in (looped, model.bfloat16()):
        assert (logits(other, name).float() - before).abs().max() < 0.1 * before.abs().max()


def test_the_deltas_train_alone_and_are_saved(name, tmp_path):
    model = loop(pretrained(name), 1, {"rank": 2}, shared=1)
    adapters.attach(model, {"kind": "weights", "target_parameters": r".*\.delta\..*"})
    inputs = batch_for(name)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    linears = [m for m in model.modules() if isinstance(m, SharedLinear)]
    assert all(any(core.grad.any() for core in linear.delta.parameters()) for linear in linears)  # also of depth 1
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, _ in model.named_parameters() if ".delta." in n
    }
    with torch.no_grad():
        for linear in linears:
            linear.delta.cores[0].mul_(1.5)
    adapters.save(model, tmp_path)
    loaded = adapters.load(loop(pretrained(name), 1, {"rank": 2}, shared=1), tmp_path)
    assert torch.equal(logits(loaded, name), logits(model, name))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"n_layer": 3}, ("'n_layer'", "divides the 4 layers", "3")),
        ({"n_layer": 4}, ("'n_layer'", "smaller", "4")),
        ({"n_layer": 0}, ("'n_layer'", "0")),
        ({"deltas": {"rank": 0}}, ("'rank'", "at least 1", "0")),
        ({"deltas": 8}, ("'deltas'", "object", "8", "DepthDeltas")),
        ({"deltas": [8]}, ("'deltas'", "object", "[8]")),
        ({"deltas": {"rnk": 4}}, ("'rnk'", "rank")),
        ({"deltas": {"format": "cp"}}, ("'format'", "low_rank", "cp")),
        ({"deltas": {"format": "low_rank", "d": 2}}, ("'d'", "tensor_train", "2")),
        ({"shared": 4}, ("'shared'", "below 4", "4")),
        ({"shared": "first"}, ("'shared'", "mean", "first")),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments, parts):
    model = pretrained("llama")
    names = [*model.state_dict()]
    with pytest.raises(ConfigurationError) as caught:
        loop(model, **arguments)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert [*model.state_dict()] == names


def test_other_models_are_refused():
    looped = loop(pretrained("llama"), 2)
    adapted = adapters.attach(pretrained("llama"), {"kind": "tt_lora"})
    factorized = adapters.factorize(tiny("gpt2"), {"target_modules": "embedding", "format": "low_rank", "rank": 2})
    for model, part in (
        (factorized, "'factorized'"),
        (tiny("bart"), "one stack"),
        (torch.nn.Linear(2, 2), "of transformers"),
        (looped, "SharedLinear"),
        (adapted, "AdaptedLinear"),
    ):
        with pytest.raises(ConfigurationError, match=part):
            loop(model, 1)
    with pytest.raises(ConfigurationError, match="'looped'"):
        adapters.factorize(looped, {"target_modules": "embedding", "format": "low_rank", "rank": 2})
