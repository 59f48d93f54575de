"""Gauge changes and rounding with their maps, against dense algebra and autograd in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from t3nsor.gauge import (
    Gauge,
    grown,
    orthogonal_gauge,
    padding,
    ranks_within,
    regauge,
    singular_values,
    useful_ranks,
)

RAW = ((3, 4, 2, 3), (2, 3, 2, 4))
RANKS = (5, 6, 5)


def random_cores(raw_shape=RAW, ranks=RANKS, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    closed = (1, *ranks, 1)
    shapes = zip(closed[:-1], *raw_shape, closed[1:], strict=True)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def tensor_of(cores):
    """The tensor (m_1 n_1, ..., m_d n_d) by definition."""
    whole = np.ones((1, 1))
    for core in cores:
        core = core.detach().double().numpy()
        r, m, n, s = core.shape
        whole = np.einsum("pr,rjs->pjs", whole, core.reshape(r, m * n, s)).reshape(-1, s)
    return whole.reshape([core.shape[1] * core.shape[2] for core in cores])


def unfolding(cores, k):
    whole = tensor_of(cores)
    return whole.reshape(math.prod(whole.shape[:k]), -1)


def weighted_sum(cores, weights):
    """A nonlinear scalar function of the matrix."""
    full = t3.TensorTrain(cores).full()
    return (weights * full).sum() + (full**2 * weights).sum()


def gradients(cores):
    leaves = [core.detach().clone().requires_grad_() for core in cores]
    rows, columns = t3.TensorTrain(cores).shape
    weights = torch.linspace(-1, 1, rows * columns, dtype=torch.float64).reshape(rows, columns)
    return torch.autograd.grad(weighted_sum(leaves, weights), leaves)


def left_and_right(cores, k):
    left = unfolding([*cores[:k], torch.eye(cores[k].shape[0]).reshape(cores[k].shape[0], 1, -1, 1)], k)
    whole = np.eye(cores[k].shape[0])
    for core in cores[k:]:
        core = core.double().numpy()
        r, m, n, s = core.shape
        whole = np.einsum("pr,rjs->pjs", whole.reshape(-1, r), core.reshape(r, m * n, s)).reshape(-1, s)
    return left, whole.reshape(cores[k].shape[0], -1)


def with_rank(true_ranks, ranks, seed=0):
    """Nonzero cores of these ranks for a matrix of smaller ranks."""
    cores, _ = grown(random_cores(ranks=true_ranks, seed=seed), ranks)
    generator = torch.Generator().manual_seed(seed + 1)
    turns = [torch.randn(r, r, generator=generator, dtype=torch.float64) for r in ranks]
    return Gauge(tuple(turns), tuple(torch.linalg.inv(turn) for turn in turns)).cores(cores)


class TestSingularValues:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_match_the_dense_unfoldings(self, dtype):
        cores = random_cores(dtype=dtype)
        for k, values in enumerate(singular_values(cores), start=1):
            dense = np.linalg.svd(unfolding(cores, k), compute_uv=False)
            assert values.dtype == torch.float64
            np.testing.assert_allclose(values, dense[: len(values)], rtol=1e-10)
            assert dense[len(values) :].max(initial=0) < 1e-10 * dense[0]

    def test_a_single_core_has_no_bond(self):
        assert singular_values(random_cores(((3,), (4,)), ())) == []

    @pytest.mark.parametrize(("bad", "message"), [(math.nan, "finite"), (math.inf, "finite")])
    def test_non_finite_cores_raise(self, bad, message):
        cores = random_cores()
        cores[1][0, 0, 0, 0] = bad
        with pytest.raises(ValueError, match=message):
            singular_values(cores)


class TestRegauge:
    @settings(max_examples=40)
    @given(data=st.data())
    def test_the_error_is_exact_and_within_the_bound(self, data):
        d = data.draw(st.integers(2, 4))
        sizes = st.lists(st.integers(1, 4), min_size=d, max_size=d)
        raw_shape = (tuple(data.draw(sizes)), tuple(data.draw(sizes)))
        ranks = useful_ranks(raw_shape, data.draw(st.lists(st.integers(1, 5), min_size=d - 1, max_size=d - 1)))
        cores = random_cores(raw_shape, ranks, seed=data.draw(st.integers(0, 99)))
        new_ranks = [data.draw(st.integers(1, rank)) for rank in ranks]
        rounded = regauge(cores, new_ranks)
        spectra = [np.linalg.svd(unfolding(cores, k), compute_uv=False) for k in range(1, d)]
        cut = sum((values[rank:] ** 2).sum() for values, rank in zip(spectra, new_ranks, strict=True))
        error = np.linalg.norm(tensor_of(cores) - tensor_of(rounded.cores))
        norm = np.linalg.norm(tensor_of(cores))
        assert t3.TensorTrain(rounded.cores).ranks == (1, *new_ranks, 1)
        assert error**2 <= cut * (1 + 1e-8) + (1e-8 * norm) ** 2
        assert rounded.error == pytest.approx(error, rel=1e-6, abs=1e-8 * norm)

    @pytest.mark.parametrize("k", [1, 2, 3])
    def test_a_single_cut_is_optimal(self, k):
        cores = random_cores()
        ranks = [*RANKS]
        ranks[k - 1] = 2
        rest = np.linalg.svd(unfolding(cores, k), compute_uv=False)[2:]
        assert regauge(cores, ranks).error == pytest.approx(np.linalg.norm(rest), rel=1e-9)

    @pytest.mark.parametrize("rel_tol", [0.0, 1e-3, 0.2, 0.7])
    def test_a_tolerance_holds(self, rel_tol):
        cores = random_cores()
        norm = np.linalg.norm(tensor_of(cores))
        rounded = regauge(cores, ranks_within(singular_values(cores), rel_tol))
        assert rounded.error <= rel_tol * norm * (1 + 1e-12)
        fewer = [regauge(cores, [*RANKS[:k], RANKS[k] - 1, *RANKS[k + 1 :]]).error for k in range(3)]
        assert (min(fewer) > rel_tol * norm / math.sqrt(3)) == (rounded.error == 0)

    def test_new_cores_are_the_old_ones_between_inverse_maps(self):
        cores = random_cores()
        rounded = regauge(cores, (3, 4, 2))
        ends = [torch.ones(1, 1, dtype=torch.float64)]
        lefts, rights = [*ends, *rounded.gauge.to_right], [*rounded.gauge.to_left, *ends]
        for p, q in zip(rounded.gauge.to_right, rounded.gauge.to_left, strict=True):
            torch.testing.assert_close(p @ q, torch.eye(len(p), dtype=torch.float64), atol=1e-10, rtol=0)
        for core, new, p, q in zip(cores, rounded.cores, lefts, rights, strict=True):
            torch.testing.assert_close(new, torch.einsum("pr,rmns,sq->pmnq", p, core, q))

    @pytest.mark.parametrize("seed", range(5))
    def test_neither_side_of_a_bond_grows(self, seed):
        cores = random_cores(seed=seed)
        for k in (1, 2, 3):
            ranks = [*RANKS]
            ranks[k - 1] = 2
            new = regauge(cores, ranks).cores
            for before, after in zip(left_and_right(cores, k), left_and_right(new, k), strict=True):
                assert np.linalg.norm(after, 2) <= np.linalg.norm(before, 2) * (1 + 1e-10)

    def test_a_bond_that_is_not_cut_leaves_its_cores_unchanged(self):
        cores = random_cores(dtype=torch.float32)
        rounded = regauge(cores, (5, 6, 2))
        assert torch.equal(rounded.cores[0], cores[0])
        assert torch.equal(rounded.cores[1], cores[1])
        assert rounded.cores[2].dtype == torch.float32

    @pytest.mark.parametrize("zero", range(4))
    @pytest.mark.parametrize("floor", [1, 3])
    def test_a_zero_core_does_not_reduce_the_other_cores(self, zero, floor):
        cores = random_cores()
        cores[zero].zero_()
        assert ranks_within(singular_values(cores), 0.1) == (0, 0, 0)
        rounded = regauge(cores, (floor,) * 3)
        assert rounded.error == 0
        for k, (core, new) in enumerate(zip(cores, rounded.cores, strict=True)):
            share = floor / max(core.shape[0], core.shape[3])
            assert (float(new.norm()) >= 0.4 * math.sqrt(share) * float(core.norm())) if k != zero else not new.any()
        assert gradients(rounded.cores)[zero].abs().max() > 1e-3

    def test_redundant_ranks_are_found(self):
        cores = with_rank((2, 3, 2), (5, 6, 5))
        norm = np.linalg.norm(tensor_of(cores))
        assert ranks_within(singular_values(cores), 1e-9) == (2, 3, 2)
        rounded = regauge(cores, (2, 3, 2))
        assert rounded.error < 1e-8 * norm

    def test_redundant_ranks_are_kept_on_request(self):
        cores = with_rank((2, 3, 2), (5, 6, 5))
        rounded = regauge(cores, (4, 4, 4))
        assert rounded.error < 1e-8 * np.linalg.norm(tensor_of(cores))
        for p, q in zip(rounded.gauge.to_right, rounded.gauge.to_left, strict=True):
            torch.testing.assert_close(p @ q, torch.eye(4, dtype=torch.float64), atol=1e-8, rtol=0)

    @pytest.mark.parametrize(
        ("ranks", "message"), [((5, 6), "each of the 3 bonds"), ((5, 7, 5), "grown"), ((0, 6, 5), "from 1")]
    )
    def test_invalid_ranks_raise(self, ranks, message):
        with pytest.raises(ValueError, match=message):
            regauge(random_cores(), ranks)

    def test_cores_on_the_meta_device_raise(self):
        with pytest.raises(ValueError, match="meta"):
            regauge([core.to("meta") for core in random_cores()], (1, 1, 1))


class TestGradients:
    @pytest.mark.parametrize("center", range(4))
    def test_transformed_by_an_orthogonal_gauge_match_autograd(self, center):
        cores = random_cores()
        gauge = orthogonal_gauge(cores, center)
        self.assert_carried(cores, gauge)

    def test_transformed_by_any_gauge_match_autograd(self):
        generator = torch.Generator().manual_seed(3)
        turns = [torch.randn(r, r, generator=generator, dtype=torch.float64) for r in RANKS]
        self.assert_carried(random_cores(), Gauge(tuple(turns), tuple(torch.linalg.inv(turn) for turn in turns)))

    def test_transformed_to_larger_ranks_match_autograd_in_the_old_entries(self):
        cores = random_cores()
        ranks = (6, 8, 7)
        gauge = padding(RANKS, ranks, cores[0])
        self.assert_carried(cores, gauge, places=True)

    def test_transformed_by_a_cut_match_autograd_up_to_the_part_cut(self):
        cores = with_rank((2, 3, 2), (5, 6, 5))
        noisy = [core + 1e-7 * noise for core, noise in zip(cores, random_cores(seed=7), strict=True)]
        rounded = regauge(noisy, (2, 3, 2))
        for k, (old, expected) in enumerate(zip(gradients(noisy), gradients(rounded.cores), strict=True)):
            assert (rounded.gauge.gradient(k, old) - expected).norm() < 1e-4 * expected.norm()

    def assert_carried(self, cores, gauge, places=False):
        new = gauge.cores(cores)
        for k, (old, expected) in enumerate(zip(gradients(cores), gradients(new), strict=True)):
            carried = gauge.gradient(k, old)
            if places:
                r, s = old.shape[0], old.shape[3]
                assert torch.equal(carried[:r, :, :, :s], old)
                assert carried.count_nonzero() == old.count_nonzero()
            else:
                torch.testing.assert_close(carried, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))

    def test_squared_gradients_transform_entry_by_entry(self):
        """A gradient with a single nonzero entry: its square transforms to the square of the transformed gradient."""
        cores = random_cores()
        gauge = regauge(cores, (3, 4, 2)).gauge
        for k, core in enumerate(cores):
            total = torch.zeros_like(gauge.core(k, core))
            variances = torch.rand(core.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
            for index in np.ndindex(*core.shape):
                entry = torch.zeros_like(core)
                entry[index] = variances[index].sqrt()
                total += gauge.gradient(k, entry).square()
            torch.testing.assert_close(gauge.squared_gradient(k, variances), total)


class TestOrthogonal:
    @pytest.mark.parametrize("center", [0, 1, 2, 3, -1])
    def test_sides_are_orthonormal_and_the_matrix_is_unchanged(self, center):
        cores = random_cores()
        new = orthogonal_gauge(cores, center).cores(cores)
        np.testing.assert_allclose(tensor_of(new), tensor_of(cores), rtol=1e-9, atol=1e-9)
        for k in (1, 2, 3):
            left, right = left_and_right(new, k)
            product = left.T @ left if k <= center % 4 else right @ right.T
            np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-10)

    def test_an_orthogonal_train_is_unchanged(self):
        cores = random_cores()
        once = orthogonal_gauge(cores, 2).cores(cores)
        for map_there, rank in zip(orthogonal_gauge(once, 2).to_left, RANKS, strict=True):
            torch.testing.assert_close(map_there, torch.eye(rank, dtype=torch.float64))

    @pytest.mark.parametrize("center", range(4))
    @pytest.mark.parametrize("zero", range(4))
    def test_a_train_with_a_zero_core_can_be_orthogonalised(self, zero, center):
        cores = random_cores()
        cores[zero].zero_()
        new = orthogonal_gauge(cores, center).cores(cores)
        assert [tuple(core.shape) for core in new] == [tuple(core.shape) for core in cores]
        assert all(core.isfinite().all() and core.any() == (k != zero) for k, core in enumerate(new))

    @pytest.mark.parametrize("center", [4, -5])
    def test_an_invalid_center_raises(self, center):
        with pytest.raises(ValueError, match="center"):
            orthogonal_gauge(random_cores(), center)


class TestGrown:
    def test_the_matrix_is_unchanged_and_new_directions_have_gradients(self):
        cores = random_cores()
        new, _ = grown(cores, (6, 9, 6))
        assert t3.TensorTrain(new).ranks == (1, 6, 9, 6, 1)
        np.testing.assert_allclose(tensor_of(new), tensor_of(cores), rtol=1e-12, atol=1e-12)
        for k, (core, gradient) in enumerate(zip(new, gradients(new), strict=True)):
            if k > 0:
                assert not core[RANKS[k - 1] :].any()
                assert gradient[RANKS[k - 1] :].any()
            if k < 3:
                assert core[: cores[k].shape[0], :, :, RANKS[k] :].abs().min() > 0

    def test_a_zero_core_gets_columns_too(self):
        cores = random_cores()
        cores[1].zero_()
        new, _ = grown(cores, (5, 8, 5))
        assert new[1][..., 6:].any()
        assert not tensor_of(new).any()

    @pytest.mark.parametrize("ranks", [(4, 6, 5), (7, 6, 5), (5, 6)])
    def test_smaller_and_useless_ranks_raise(self, ranks):
        with pytest.raises(ValueError, match="at least"):
            grown(random_cores(), ranks)


@pytest.mark.parametrize(
    ("ranks", "useful"),
    [((5, 6, 5), (5, 6, 5)), ((99, 99, 99), (6, 48, 12)), ((1, 99, 99), (1, 12, 12)), ((6, 6, 1), (6, 4, 1))],
)
def test_useful_ranks_are_those_that_a_layer_accepts(ranks, useful):
    assert useful_ranks(RAW, ranks) == useful
    assert t3.TTLinear(48, 72, raw_shape=RAW, tt_rank=list(useful)).ranks[1:-1] == useful


class TestSetCores:
    def layer(self, **options):
        return t3.TTLinear(12, 8, raw_shape=((2, 2, 2), (2, 3, 2)), tt_rank=3, **options)

    def test_the_parameters_are_kept_and_still_train(self):
        layer = self.layer()
        before = list(layer.cores)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4)
        x = torch.randn(5, 12)
        loss = layer(x).square().sum()  # alive through the change, as in a training loop
        loss.backward()
        layer.set_cores(regauge(layer.live_cores(), (2, 2)).cores)
        assert all(
            core is old and core.grad is None and core.dtype == torch.float32
            for core, old in zip(layer.cores, before, strict=True)
        )
        assert layer.ranks == (1, 2, 2, 1)
        start = layer(x).square().sum()
        start.backward()
        optimizer.step()
        assert layer(x).square().sum() < start
        assert loss.grad_fn is not None

    @pytest.mark.slow
    def test_a_compiled_layer_is_recompiled(self):
        layer = self.layer()
        compiled, x = torch.compile(layer, backend="eager"), torch.randn(5, 12)
        compiled(x)
        layer.set_cores(regauge(layer.live_cores(), (2, 1)).cores)
        torch.testing.assert_close(compiled(x), layer(x))

    def test_the_layer_stores_copies(self):
        layer = self.layer()
        cores = [core.detach().clone() for core in layer.cores]
        layer.set_cores(cores)
        layer.cores[0].data += 1
        assert not torch.equal(layer.cores[0], cores[0])

    @pytest.mark.parametrize(
        ("options", "cores", "message"),
        [
            ({}, random_cores(), "factors"),
            (
                {"format": "tensor_ring"},
                random_cores(((2, 2, 2), (2, 3, 2)), (3, 3), dtype=torch.float32),
                "outer rank",
            ),
            ({"disabled_cores": (0,)}, random_cores(((2, 2, 2), (2, 3, 2)), (3, 3)), "disabled"),
            ({"format": "tensor_basis"}, random_cores(((2, 2, 2), (2, 3, 2)), (3, 3)), "Parameter of its own"),
        ],
    )
    def test_cores_that_do_not_fit_raise(self, options, cores, message):
        layer = self.layer(**options)
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            layer.set_cores(cores)
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
