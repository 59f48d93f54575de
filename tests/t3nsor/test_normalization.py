import copy
import math
import pickle

import pytest
import torch
from torch.nn.functional import rms_norm

import t3nsor as t3

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("rank", [1, 4, [2, 3]])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_from_scratch_is_the_rms_norm_with_weight_ones(rank, eps):
    norm = t3.TTLayerNorm(48, tt_rank=rank, eps=eps)
    assert torch.equal(norm.weight, torch.ones(48))
    x = torch.randn(3, 5, 48) * 0.1
    torch.testing.assert_close(norm(x), rms_norm(x, (48,), eps=eps))


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_from_weight_at_full_rank_is_the_pretrained_norm(d):
    weight = torch.randn(48)
    norm = t3.TTLayerNorm.from_weight(weight, d=d, tt_rank=100)
    x = torch.randn(3, 48)
    torch.testing.assert_close(norm.weight, weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm(x), rms_norm(x, (48,), weight, eps=1e-6), rtol=1e-5, atol=1e-5)


def test_from_weight_at_a_lower_rank_is_its_tt_svd():
    weight = torch.randn(48, dtype=torch.float64)
    norm = t3.TTLayerNorm.from_weight(weight, d=2, tt_rank=2)
    rows, columns = norm.raw_shape[0]
    u, s, vh = torch.linalg.svd(weight.reshape(rows, columns))
    torch.testing.assert_close(norm.weight, ((u[:, :2] * s[:2]) @ vh[:2]).reshape(48))


@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_t5_bit_for_bit_where_the_weight_is_exact(dtype):
    """T5LayerNorm in half precision: normalise in float32, round, then multiply by the rounded weight."""
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    reference = T5LayerNorm(48).to(dtype)
    norm = t3.TTLayerNorm(48, eps=reference.variance_epsilon, dtype=torch.promote_types(dtype, torch.float32))
    x = torch.randn(5, 48).to(dtype)
    expected = reference(x) if dtype != torch.float64 else rms_norm(x, (48,), eps=1e-6)
    y = norm(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, expected, rtol=0, atol=0 if dtype != torch.float64 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_large_half_precision_input_does_not_overflow(dtype):
    x = torch.full((2, 48), 3e4).to(dtype)
    for norm in (t3.TTLayerNorm(48), t3.ScaleNorm(48)):
        torch.testing.assert_close(norm(x), torch.ones(2, 48, dtype=dtype), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_weights_are_kept_in_float32(dtype):
    weight = torch.randn(48).to(dtype)
    norm = t3.TTLayerNorm.from_weight(weight, tt_rank=100)
    assert norm.cores[0].dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(norm.weight.to(dtype), weight) or dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize("start", ["ones", "weight of ones", "weight"])
def test_every_rank_index_learns_from_every_init(start):
    torch.manual_seed(0)
    target = torch.randn(36)
    norm = t3.TTLayerNorm(36, d=2, tt_rank=6)
    if start != "ones":
        norm.decompose_(torch.ones(36) if start == "weight of ones" else torch.randn(36))
    optimizer = torch.optim.Adam(norm.parameters(), lr=0.03)
    for _ in range(500):
        optimizer.zero_grad()
        (norm.weight - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(norm.weight.detach(), target, rtol=0, atol=0.02)


def test_decompose_after_meta_construction():
    weight = torch.randn(48)
    for norm in (
        t3.TTLayerNorm(48, tt_rank=100, device="meta"),
        t3.TTLayerNorm(48, tt_rank=100, device="meta").to_empty(device="cpu"),
    ):
        norm.decompose_(weight)
        assert all(isinstance(core, torch.nn.Parameter) and core.requires_grad for core in norm.cores)
        torch.testing.assert_close(norm.weight, weight, rtol=1e-5, atol=1e-6)


def test_decompose_is_in_place():
    norm = t3.TTLayerNorm(48)
    before = list(norm.cores)
    norm.decompose_(torch.randn(48))
    assert all(core is old for core, old in zip(norm.cores, before, strict=True))


def test_another_constant_init():
    norm = t3.TTLayerNorm(48, init="zero")
    assert torch.equal(norm.weight, torch.zeros(48))


def test_scale_norm_is_initially_the_rms_norm_and_has_one_parameter():
    norm = t3.ScaleNorm(48)
    x = torch.randn(3, 5, 48)
    assert sum(parameter.numel() for parameter in norm.parameters()) == 1
    assert norm.g.item() == pytest.approx(math.sqrt(48))
    torch.testing.assert_close(norm(x), rms_norm(x, (48,), eps=1e-6))
    with torch.no_grad():
        norm.g.fill_(3.0)
    torch.testing.assert_close(norm(x), 3.0 * x / x.norm(dim=-1, keepdim=True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: t3.TTLayerNorm(6, d=2, dtype=torch.float64), lambda: t3.ScaleNorm(6, dtype=torch.float64)]
)
def test_gradcheck(make):
    norm = make()
    names, parameters = zip(*norm.named_parameters(), strict=True)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def forward(x, *values):
        return torch.func.functional_call(norm, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(forward, (x, *(p.detach().requires_grad_() for p in parameters)))


@pytest.mark.parametrize(
    ("disabled", "constant_along"), [((0,), [0]), ((1,), [1]), ((-1,), [2]), ((0, 1), [0, 1]), ((1, 2), [1, 2])]
)
def test_a_disabled_core_makes_the_weight_constant_along_its_factor(disabled, constant_along):
    """For any values of the other cores, w[i_1, i_2, i_3] does not depend on the index of a disabled core."""
    norm = t3.TTLayerNorm(24, tt_rank=3, raw_shape=(2, 3, 4), disabled_cores=disabled, dtype=torch.float64)
    assert torch.equal(norm.weight, torch.ones(24, dtype=torch.float64))
    assert norm.disabled_cores == tuple(constant_along)
    with torch.no_grad():
        for k, core in enumerate(norm.cores):
            assert core.requires_grad == (k not in constant_along)
            if core.requires_grad:
                core.normal_()
    weight = norm.weight.reshape(2, 3, 4)
    for axis in range(3):
        same = torch.allclose(weight, weight.narrow(axis, 0, 1).expand_as(weight), rtol=1e-12, atol=0)
        assert same == (axis in constant_along)


def test_an_inner_disabled_core_passes_every_rank_index():
    norm = t3.TTLayerNorm(24, tt_rank=2, raw_shape=(2, 3, 4), disabled_cores=[1], dtype=torch.float64)
    torch.nn.init.normal_(norm.cores[0])
    torch.nn.init.normal_(norm.cores[2])
    expected = norm.cores[0][0, :, 0] @ norm.cores[2][:, :, 0, 0]  # (m_1, r) x (r, m_3) -> (m_1, m_3)
    torch.testing.assert_close(norm.weight.reshape(2, 3, 4)[:, 2], expected, rtol=1e-12, atol=1e-12)


def test_a_frozen_core_keeps_the_value_it_was_decomposed_into():
    norm = t3.TTLayerNorm(24, tt_rank=100, frozen_cores=[0, -1]).decompose_(torch.randn(24))
    assert [core.requires_grad for core in norm.cores] == [False, True, False]
    before = [core.detach().clone() for core in norm.cores]
    optimizer = torch.optim.SGD([core for core in norm.cores if core.requires_grad], lr=0.1)
    norm(torch.randn(5, 24)).square().sum().backward()
    optimizer.step()
    assert [torch.equal(core, start) for core, start in zip(norm.cores, before, strict=True)] == [True, False, True]


@pytest.mark.parametrize("make", [t3.TTLayerNorm, t3.ScaleNorm])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_strides_batches_meta_and_copies(make, dtype):
    norm = make(48)
    x = torch.randn(48, 5, 3).to(dtype).permute(2, 1, 0)
    y = norm(x)
    assert y.dtype == dtype
    meta = make(48, device="meta")
    meta.load_state_dict(norm.state_dict(), assign=True)
    for other in (meta, copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        torch.testing.assert_close(other(x), y, rtol=0, atol=0)
    assert norm(x[:0]).shape == (0, 5, 48)
    assert norm(x[0, 0]).shape == (48,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: t3.TTLayerNorm(0), ValueError, "normalized_shape must be at least 1"),
        (lambda: t3.TTLayerNorm((4, 4)), TypeError, "normalized_shape must be an integer"),
        (lambda: t3.TTLayerNorm(24, raw_shape=(5, 5)), ValueError, "must multiply to normalized_shape = 24"),
        (lambda: t3.TTLayerNorm(24, init="random"), ValueError, "init must be one of"),
        (lambda: t3.TTLayerNorm(24, frozen_cores=[3]), ValueError, "each of frozen_cores must lie between -3 and 2"),
        (lambda: t3.TTLayerNorm(24, disabled_cores="0"), TypeError, "disabled_cores must be a sequence of indices"),
        (lambda: t3.TTLayerNorm(24, frozen_cores=[1], disabled_cores=[-2]), ValueError, r"got \[1\] in both lists"),
        (
            lambda: t3.TTLayerNorm(24, disabled_cores=[1]).decompose_(torch.ones(24)),
            ValueError,
            r"got disabled_cores = \(1,\)",
        ),
        (lambda: t3.TTLayerNorm(24)(torch.randn(3, 1)), ValueError, r"of shape \(..., 24\); got the shape \(3, 1\)"),
        (lambda: t3.TTLayerNorm(24)(torch.ones(24).long()), ValueError, "dtype torch.int64"),
        (lambda: t3.TTLayerNorm(24).decompose_(torch.ones(25)), ValueError, r"of 24 entries; got the shape \(25,\)"),
        (
            lambda: t3.TTLayerNorm(24).decompose_([1.0] * 24),
            TypeError,
            "weight must be a floating-point tensor; got list",
        ),
        (lambda: t3.TTLayerNorm.from_weight(torch.ones(24, 1)), ValueError, r"got the shape \(24, 1\)"),
        (lambda: t3.TTLayerNorm.from_weight(torch.ones(24).long()), TypeError, "got torch.int64"),
        (lambda: t3.TTLayerNorm(24, eps=-1e-6), ValueError, "eps must be a finite number of at least 0; got -1e-06"),
        (lambda: t3.ScaleNorm(24, eps="small"), ValueError, "eps must be a finite number"),
        (lambda: t3.TTLayerNorm(24).decompose_(torch.ones(24, device="meta")), ValueError, "meta device"),
        (lambda: t3.TTLayerNorm.from_weight(torch.full((24,), math.nan)), ValueError, "must be finite"),
        (lambda: t3.ScaleNorm(0), ValueError, "dim must be at least 1"),
        (lambda: t3.ScaleNorm(24)(torch.randn(3, 23)), ValueError, r"got the shape \(3, 23\)"),
    ],
)
def test_invalid_input_raises(call, error, message):
    with pytest.raises(error, match=message):
        call()
