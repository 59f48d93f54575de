"""attach on every known architecture, and on unknown ones by the names of their linears."""

import pytest
import torch

import adapters
from adapters.merging import non_linear_adapters
from tests.adapters.conftest import LINEAR, NON_LINEAR
from tests.adapters.models import MODELS, logits, tiny

EVERYWHERE = {
    "all linears": {"kind": "tt_lora", "rank": 2, "target_modules": "all-linear"},
    "tt_layer_norm": {"kind": "tt_layer_norm", "rank": 2},
    "scale_norm": {"kind": "scale_norm"},
    "layer_norm": {"kind": "layer_norm"},
    "peft norms": {"kind": "peft:LN_TUNING"},
}
OF_T5 = ("tt_lora_attention", "prompt", "patterns")
KINDS = {name: config for name, config in (LINEAR | NON_LINEAR).items() if name not in OF_T5} | {
    "metatt": {"kind": "tt_lora", "rank": 3, "modes": ["in", "layer", "matrix", "out"], "target_modules": ["o"]},
    "lotr": {"kind": "tt_lora", "rank": 3, "modes": ["in", "layer", "out"], "target_modules": ["in"]},
    "rank pattern": {"kind": "tt_lora", "rank": 2, "rank_pattern": {"1.*": 3}, "target_modules": ["o"]},
    "peft lora": {"kind": "peft:LORA", "r": 2},
    "peft dora": {"kind": "peft:LORA", "r": 2, "use_dora": True, "target_modules": "all-linear"},
    "peft ia3": {"kind": "peft:IA3"},
    "peft lokr": {"kind": "peft:LOKR", "r": 2},
    "none": {"kind": "none"},
}
CHANGES_AT_STEP_0 = ("scale_norm", "tt_layer_norm", "composed")
NO_BIAS = "module without a bias"
UNMERGEABLE = {
    **{(kind, "llama"): NO_BIAS for kind in ("tt_lora", "tensor_ring", "tucker", "tt_single", "bitfit")},
    ("bitfit", "gpt2"): NO_BIAS,
}
"""Why ``merge_and_unload`` is refused: the plain model has no place for a bias."""
WITHOUT_HEAD = {"lm_head": ("bert",), "head": ("gpt2", "llama")}
CASES = [
    (model, kind) for model in ("bert", "gpt2", "llama") for kind in KINDS if model not in WITHOUT_HEAD.get(kind, ())
]
CASES += [
    (model, kind)
    for model in MODELS
    if model not in ("bert", "gpt2", "llama")
    for kind in EVERYWHERE
    if kind != "scale_norm"  # it finds and replaces the norms that tt_layer_norm does
]
CASES += [(model, kind) for model in ("bert", "gpt2", "llama") for kind in ("all linears", "peft norms")]


def disturbed(model, seed=3):
    """The model after its trainable parameters have moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def with_other_norms(name, config):
    """The model whose norms have the weights that a norm kind starts at, computed without the library."""
    kinds = {entry["kind"] for entry in (config if isinstance(config, list) else [config])}
    model = tiny(name)
    around_one = int(name.startswith("gemma"))
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        is_norm = weight is not None and weight.dim() == 1 and "norm" in type(module).__name__.lower()
        if not is_norm or path.endswith(("q_norm", "k_norm")):
            continue
        with torch.no_grad():
            w = weight + around_one
            new = w.mean().expand(24) if "scale_norm" in kinds else tt_svd(w, ranks=(2, 2))
            weight.copy_(new - around_one)
    return model


def tt_svd(vector, ranks, shape=(2, 3, 4)):
    """A vector (24,) rounded to a tensor train of these ranks, by SVDs in float64 (Oseledets 2011, algorithm 1)."""
    left, rest = torch.ones(1, 1, dtype=torch.float64), vector.double().reshape(1, -1)
    for size, rank in zip(shape, ranks, strict=False):
        u, s, v = torch.linalg.svd(rest.reshape(rest.shape[0] * size, -1), full_matrices=False)
        rank = min(rank, len(s))
        core = u[:, :rank].reshape(-1, size, rank)
        left = torch.einsum("ap,pmr->amr", left, core).reshape(-1, rank)  # (rows, p) x (p, m, r) -> (rows m, r)
        rest = s[:rank, None] * v[:rank]
    return (left @ rest.reshape(left.shape[1], -1)).reshape(-1).to(vector.dtype)


def close(one, other):
    return (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{kind} in {name}" for name, kind in CASES])
def test_life_cycle(name, kind, tmp_path):
    config = (KINDS | EVERYWHERE)[kind]
    base = logits(tiny(name), name)
    model = adapters.attach(tiny(name), config)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    start = logits(model, name)
    if kind in CHANGES_AT_STEP_0:
        assert close(start, logits(with_other_norms(name, config), name))
    else:
        assert torch.equal(start, base)

    disturbed(model)
    adapted = logits(model, name)
    assert not close(adapted, start)
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in frozen if key in before)

    adapters.save(model, tmp_path / "adapter")
    again = adapters.load(tiny(name), tmp_path / "adapter")
    assert torch.equal(logits(again, name), adapted)
    saved = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    if not non_linear_adapters(model):
        with adapters.merged(model):
            assert close(logits(model, name), adapted)
        state = model.state_dict()
        assert saved.keys() == state.keys()
        assert all(torch.equal(state[key], saved[key]) for key in saved)
        assert torch.equal(logits(model, name), adapted)
    adapters.summary(model)
    if kind == "none" or non_linear_adapters(model):
        return
    if reason := UNMERGEABLE.get((kind, name)):
        with pytest.raises(adapters.MergeError, match=reason):
            adapters.merge_and_unload(model)
        return
    plain = adapters.merge_and_unload(model)
    assert close(logits(plain, name), adapted)
    assert [type(m) for m in plain.modules()] == [type(m) for m in tiny(name).modules()]
    plain.save_pretrained(tmp_path / "plain")
    reloaded = type(plain).from_pretrained(tmp_path / "plain")
    assert close(logits(reloaded.eval(), name), adapted)
