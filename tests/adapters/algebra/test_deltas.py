"""Deltas as vectors, compared with dense float64 matrices that numpy adds, multiplies and decomposes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from adapters import ConfigurationError, Deltas

SHAPES = {"a": ((2, 3), (3, 2)), "b": ((2, 2, 3), (3, 1, 2)), "c": ((5,), (4,)), "d": ((1, 6), (4, 1))}


def dense(train: t3.TensorTrain) -> np.ndarray:
    """The matrix (out, in) of cores (r, m, n, s), by the definition."""
    cores = [core.double().numpy() for core in train.cores]
    d = len(cores)
    operands = [part for k, core in enumerate(cores) for part in (core, [2 * d + k, k, d + k, 2 * d + k + 1])]
    tensor = np.einsum(*operands, list(range(2 * d)))  # (m_1, ..., m_d, n_1, ..., n_d)
    return tensor.reshape(train.shape)


def vector(deltas: Deltas) -> np.ndarray:
    """All entries of all deltas and biases in one vector, zeros for missing paths."""
    parts = []
    for path, (rows, columns) in SHAPES.items():
        shape = math.prod(rows), math.prod(columns)
        parts.append((dense(deltas[path]) if path in deltas else np.zeros(shape)).ravel())
        parts.append(deltas.biases[path].numpy() if path in deltas.biases else np.zeros(shape[0]))
    return np.concatenate(parts)


def random_deltas(seed: int, paths=SHAPES, rank: int = 2, std: float = 1.0, with_biases: bool = True) -> Deltas:
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        return std * torch.randn(shape, generator=generator, dtype=torch.float64)

    trains = {path: t3.TensorTrain(map(draw, t3.TensorTrain.core_shapes(SHAPES[path], rank))) for path in paths}
    biases = {path: draw((trains[path].shape[0],)) for path in list(paths)[::2]} if with_biases else {}
    return Deltas(trains, biases)


@st.composite
def some_deltas(draw):
    paths = draw(st.lists(st.sampled_from(list(SHAPES)), unique=True))
    return random_deltas(
        draw(st.integers(0, 2**31)), paths, draw(st.integers(1, 4)), draw(st.sampled_from([1e-3, 1.0, 10.0]))
    )


few = settings(max_examples=40)
"""Enough examples for all shapes and combinations of paths."""
scalars = st.just(0.0) | st.floats(1e-6, 5) | st.floats(-5, -1e-6)


class TestVectorSpace:
    @few
    @given(some_deltas(), some_deltas(), scalars)
    def test_operators_are_those_of_dense_vectors(self, x, y, a):
        u, v = vector(x), vector(y)
        tolerance = 1e-13 * (1 + np.abs(u).max() + np.abs(v).max()) * (1 + abs(a))
        table = {
            "+": (x + y, u + v),
            "-": (x - y, u - v),
            "negative": (-x, -u),
            "a x": (a * x, a * u),
            "x a": (x * a, u * a),
            "x / a": (x / (a or 1.0), u / (a or 1.0)),
            "interpolated": (x.interpolate(y, a), (1 - a) * u + a * v),
            "mean": (Deltas.mean([x, y, x]), (2 * u + v) / 3),
            "weighted mean": (Deltas.mean([x, y], [3, 1]), (3 * u + v) / 4),
        }
        for name, (result, expected) in table.items():
            scale = 1 if name != "x / a" else max(1, 1 / abs(a or 1.0))
            assert np.abs(vector(result) - expected).max() <= tolerance * scale, name

    @few
    @given(some_deltas(), some_deltas())
    def test_products_norms_and_distances_are_those_of_dense_vectors(self, x, y):
        u, v = vector(x), vector(y)
        size = np.linalg.norm(u) * np.linalg.norm(v)
        assert x.dot(y) == pytest.approx(u @ v, abs=1e-12 * (size + 1e-12))
        assert x.norm() == pytest.approx(np.linalg.norm(u), rel=1e-12)
        assert x.distance(y) == pytest.approx(
            np.linalg.norm(u - v), abs=1e-12 * (np.linalg.norm(u) + np.linalg.norm(v))
        )
        if size:
            assert x.cosine(y) == pytest.approx(u @ v / size, abs=1e-12)

    @few
    @given(some_deltas(), some_deltas(), some_deltas(), scalars)
    def test_it_is_an_inner_product_space(self, x, y, z, a):
        norms = x.norm(), y.norm(), z.norm()
        slack = 1e-11 * (1 + sum(norms)) ** 2 * (1 + abs(a))
        assert abs(x.dot(y)) <= x.norm() * y.norm() + slack  # Cauchy-Schwarz
        assert (x + y).norm() <= x.norm() + y.norm() + slack  # triangle
        assert x.distance(z) <= x.distance(y) + y.distance(z) + slack
        assert x.dot(y) == pytest.approx(y.dot(x), abs=slack)
        assert (x + a * y).dot(z) == pytest.approx(x.dot(z) + a * y.dot(z), abs=slack)
        parallelogram = (x + y).norm() ** 2 + (x - y).norm() ** 2
        assert parallelogram == pytest.approx(2 * x.norm() ** 2 + 2 * y.norm() ** 2, abs=slack)

    def test_a_distance_of_close_vectors_is_accurate(self):
        x, step = random_deltas(1), 1e-9 * random_deltas(2)
        assert x.distance(x + step) == pytest.approx(step.norm(), rel=1e-5)

    def test_ranks_add_at_common_paths_only(self):
        x, y = random_deltas(1, "ab"), random_deltas(2, "b", rank=3)
        total = x + y
        assert list(total) == ["a", "b"]
        assert total["a"].ranks == x["a"].ranks
        assert total["b"].ranks == (1, 5, 5, 1)

    @few
    @given(some_deltas(), st.integers(0, 99))
    def test_orthogonal_maps_of_rows_preserve_products(self, x, seed):
        """Rotate the rows of the first core: T -> (Q x 1) T with Q orthogonal."""
        y = random_deltas(seed, list(x), with_biases=False)
        generator = torch.Generator().manual_seed(seed)

        def rotated(deltas):
            trains = {}
            for path, train in deltas.items():
                generator.manual_seed(seed)
                m = train.cores[0].shape[1]
                q = torch.linalg.qr(torch.randn(m, m, generator=generator, dtype=torch.float64))[0]
                trains[path] = t3.TensorTrain([torch.einsum("ij,rjns->rins", q, train.cores[0]), *train.cores[1:]])
            return Deltas(trains)

        x = Deltas(x)
        slack = 1e-11 * (1 + x.norm()) * (1 + y.norm())
        assert rotated(x).dot(rotated(y)) == pytest.approx(x.dot(y), abs=slack)
        assert rotated(x).norm() == pytest.approx(x.norm(), rel=1e-11)
        assert rotated(x).distance(rotated(y)) == pytest.approx(x.distance(y), abs=slack)

    def test_it_is_immutable(self):
        x = random_deltas(0)
        with pytest.raises(TypeError):
            x["a"] = x["b"]
        with pytest.raises(TypeError):
            x.biases["a"] = x.biases["c"]

    def test_it_is_float64_without_gradients_for_any_dtype(self):
        cores = [torch.nn.Parameter(torch.randn(shape)) for shape in ((1, 2, 3, 2), (2, 3, 2, 1))]
        x = Deltas({"a": t3.TensorTrain(cores)}, {"a": torch.randn(6, dtype=torch.bfloat16)})
        assert x["a"].dtype == x.biases["a"].dtype == torch.float64
        assert not any(core.requires_grad for core in x["a"].cores)


class TestRounding:
    @few
    @given(some_deltas(), st.integers(1, 3))
    def test_the_reported_error_is_the_dense_one(self, x, max_rank):
        rounded, report = x.round(max_rank=max_rank)
        assert all(max(train.ranks) <= max_rank for train in rounded.values())
        assert report.error == pytest.approx(np.linalg.norm(vector(x) - vector(rounded)), abs=1e-12 * (1 + x.norm()))
        for path, linear in report.linears.items():
            lost = np.linalg.norm(dense(x[path]) - dense(rounded[path]))
            assert linear.error == pytest.approx(lost, abs=1e-12 * (1 + x.norm()))
            assert (linear.ranks_before, linear.ranks) == (x[path].ranks, rounded[path].ranks)
        assert {path: bias.tolist() for path, bias in rounded.biases.items()} == {
            path: bias.tolist() for path, bias in x.biases.items()
        }

    @few
    @given(some_deltas(), st.sampled_from([1e-8, 0.1, 0.5]))
    def test_the_tolerance_holds_for_each_linear_and_in_total(self, x, rel_tol):
        _, report = x.round(rel_tol=rel_tol)
        assert all(linear.error <= rel_tol * linear.norm * (1 + 1e-9) for linear in report.linears.values())
        assert report.relative_error <= rel_tol * (1 + 1e-9)

    @few
    @given(some_deltas(), scalars.filter(lambda a: abs(1 + a) > 1e-3))
    def test_a_rounded_sum_of_equals_has_the_ranks_of_one(self, x, a):
        total = x + a * x
        rounded, report = total.round(rel_tol=1e-10)
        assert all(max(rounded[path].ranks) <= max(x[path].ranks) for path in x)
        assert report.relative_error <= 1e-10
        assert rounded.distance((1 + a) * x) <= 1e-9 * (1 + abs(a)) * (1 + x.norm())

    def test_two_cores_are_truncated_like_a_singular_value_decomposition(self):
        """Eckart-Young: for two cores (r, m, n, s) the error is the norm of the truncated singular values."""
        x = random_deltas(5, "a", rank=6, with_biases=False)
        unfolding = dense(x["a"]).reshape(2, 3, 3, 2).transpose(0, 2, 1, 3).reshape(6, 6)
        lost = np.linalg.svd(unfolding, compute_uv=False)[2:]
        assert x.round(max_rank=2)[1].error == pytest.approx(np.linalg.norm(lost), rel=1e-12)

    def test_the_report_prints_every_linear_and_the_total(self):
        report = random_deltas(0).round(max_rank=1)[1]
        text = str(report)
        assert all(any(line.startswith(f" {path} ") for line in text.splitlines()) for path in SHAPES)
        assert f"{report.relative_error:.2e}" in text

    def test_rounding_zero_has_no_error(self):
        rounded, report = (0 * random_deltas(0, with_biases=False)).round(rel_tol=0.1)
        assert report.error == report.relative_error == rounded.norm() == 0.0
        assert all(set(train.ranks) == {1} for train in rounded.values())


class TestOtherShapes:
    @few
    @given(some_deltas())
    def test_low_rank_factors_are_exact(self, x):
        y = x.to_low_rank()
        assert np.abs(vector(y) - vector(x)).max() <= 1e-12 * (1 + x.norm())
        for path, train in y.items():
            out, in_ = x[path].shape
            assert train.raw_shape == ((1, out), (in_, 1))
            assert train.ranks[1] == max(1, np.linalg.matrix_rank(dense(x[path])))

    def test_low_rank_factors_have_the_matrix_rank(self):
        x = random_deltas(0, "d", with_biases=False)
        total = (x + x).to_low_rank()
        assert total["d"].ranks == x["d"].ranks == (1, 2, 1)
        assert total.distance(2 * x) < 1e-13 * x.norm()

    @few
    @given(some_deltas(), some_deltas())
    def test_products_and_distances_do_not_depend_on_the_raw_shape(self, x, y):
        z = y.to_low_rank()
        slack = 1e-11 * (1 + x.norm()) * (1 + y.norm())
        assert x.dot(z) == pytest.approx(x.dot(y), abs=slack)
        assert z.dot(x) == pytest.approx(x.dot(y), abs=slack)
        assert x.distance(z) == pytest.approx(x.distance(y), abs=slack)

    def test_products_of_different_raw_shapes_without_low_rank_factors(self):
        x, y = (random_deltas(seed, "b", rank=6, with_biases=False) for seed in (1, 2))
        other, report = y.reshaped(raw_shape=((3, 4), (2, 3)))
        assert report.relative_error < 1e-14
        assert x.dot(other) == pytest.approx(x.dot(y), abs=1e-12 * x.norm() * y.norm())

    @pytest.mark.parametrize(
        ("fields", "raw_shape"),
        [
            ({"raw_shape": ((3, 4), (2, 3))}, ((3, 4), (2, 3))),
            ({"raw_shape": ((2, 3), (3, 4))}, ((3, 4), (2, 3))),  # swapped, as its sizes are
            ({"d": 2, "shape_mode": "descending"}, ((4, 3), (3, 2))),
            ({"d": 2, "shape_mode": "ascending"}, ((3, 4), (2, 3))),
        ],
    )
    def test_shapes_are_given_as_in_a_configuration(self, fields, raw_shape):
        x = random_deltas(0, "b")
        y, report = x.reshaped(**fields)
        assert y["b"].raw_shape == raw_shape
        assert np.abs(vector(x) - vector(y)).max() < 1e-12
        assert report.relative_error < 1e-14

    @given(st.integers(0, 99), st.integers(1, 5))
    def test_the_error_of_reshaping_is_that_of_the_truncated_singular_values(self, seed, max_rank):
        x = random_deltas(seed, "d", rank=4, with_biases=False)
        y, report = x.reshaped(raw_shape=((2, 3), (2, 2)), max_rank=max_rank)
        unfolding = dense(x["d"]).reshape(2, 3, 2, 2).transpose(0, 2, 1, 3).reshape(4, 6)
        lost = np.linalg.norm(np.linalg.svd(unfolding, compute_uv=False)[max_rank:])
        assert report.error == pytest.approx(lost, abs=1e-12 * x.norm())
        assert np.linalg.norm(vector(x) - vector(y)) == pytest.approx(lost, abs=1e-12 * x.norm())


BIG = t3.TensorTrain([torch.ones(1, 7, 4, 1)])
NOT_A_NUMBER = t3.TensorTrain([torch.full((1, 5, 4, 1), math.nan)])
INVALID = {
    "a bias of another size": (lambda x: Deltas({"c": BIG}, {"c": torch.ones(5)}), r"\(5,\) at c, whose out size is 7"),
    "a bias without a delta": (lambda x: Deltas({}, {"c": torch.ones(5)}), "give a delta of this size"),
    "not a number": (lambda x: Deltas({"c": NOT_A_NUMBER}), "finite values; got .* at c"),
    "a bias that is infinite": (
        lambda x: Deltas({"c": BIG}, {"c": torch.full((7,), math.inf)}),
        "finite values; got .* at c",
    ),
    "sizes that differ": (lambda x: x + Deltas({"c": BIG}), r"got \(5, 4\) and \(7, 4\) at c"),
    "a product of sizes that differ": (lambda x: x.dot(Deltas({"c": BIG})), "one base model"),
    "a distance of sizes that differ": (lambda x: x.distance(Deltas({"c": BIG})), "one base model"),
    "a sum of shapes": (lambda x: x + x.to_low_rank(), r"to_low_rank\(\)"),
    "a multiple by NaN": (lambda x: x * math.nan, "finite number; got nan"),
    "a mean of nothing": (lambda x: Deltas.mean([]), "at least one adapter"),
    "weights that cancel": (lambda x: Deltas.mean([x, x], [1, -1]), "nonzero sum"),
    "too few weights": (lambda x: Deltas.mean([x, x], [1]), "2 adapters and 1 weights"),
    "a cosine with zero": (lambda x: x.cosine(0 * x), "nonzero adapters"),
    "a rank of zero": (lambda x: x.round(max_rank=0), "max_rank"),
    "a tolerance of one": (lambda x: x.round(rel_tol=1.0), "rel_tol"),
    "a shape that does not fit": (lambda x: x.reshaped(raw_shape=((2, 2), (2, 2))), "raw_shape"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_operations_are_reported(case):
    attempt, named = INVALID[case]
    with pytest.raises((ValueError, ConfigurationError), match=named):
        attempt(random_deltas(0))


@pytest.mark.parametrize("attempt", [lambda x: x + 1, lambda x: x - 1, lambda x: x * x, lambda x: x / x])
def test_unsupported_operands_are_type_errors(attempt):
    with pytest.raises(TypeError):
        attempt(random_deltas(0))
