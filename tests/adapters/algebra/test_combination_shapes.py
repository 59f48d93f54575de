"""combine with adapters of different raw shapes, as those of different ranks have by default, against dense sums."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

import adapters
from adapters import ConfigurationError, Deltas
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import llama, logits

from .conftest import scrambled

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = {"target_modules": ["up_proj", "down_proj"]}  # 16 -> 24 and 24 -> 16
RAW_SHAPE = [[2, 3, 4], [4, 2, 2]]


@pytest.fixture
def saved(tmp_path):
    """A function from configurations to the folders of adapted Llamas."""

    def make(*configs):
        folders = [tmp_path / f"peft_{k}" for k, _ in enumerate(configs)]
        for seed, (config, folder) in enumerate(zip(configs, folders, strict=True)):
            scrambled(get_peft_model(llama(), config), seed).save_pretrained(folder)
        return folders

    return make


@pytest.fixture
def two_ranks(saved):
    """Two folders of our tuner whose default raw shapes differ because their ranks do."""
    folders = saved(TensorTrainConfig(rank=1, **TARGETS), TensorTrainConfig(rank=6, delta_bias="dense", **TARGETS))
    shapes = [{train.raw_shape for train in Deltas.read(folder).values()} for folder in folders]
    assert shapes[0] != shapes[1]
    return folders


def dense(folder) -> dict[str, torch.Tensor]:
    return {path: train.full() for path, train in Deltas.read(folder).items()}


def dense_sum(folders, weights) -> dict[str, torch.Tensor]:
    parts = [dense(folder) for folder in folders]
    return {path: sum(w * part[path] for w, part in zip(weights, parts, strict=True)) for path in parts[0]}


def error(found, expected) -> float:
    return float(torch.stack([(found[path] - expected[path]).square().sum() for path in expected]).sum().sqrt())


@pytest.mark.parametrize("shape", ["low_rank", "first", RAW_SHAPE, ((6, 4), (4, 4))], ids=str)
@pytest.mark.parametrize("weights", [None, [1, -0.5]], ids=str)
class TestDifferentRanks:
    def test_sum_is_exact_and_loads(self, two_ranks, shape, weights, tmp_path):
        report = adapters.combine(two_ranks, weights, shape=shape, output=tmp_path / "sum")
        expected = dense_sum(two_ranks, weights or [0.5, 0.5])
        assert error(dense(tmp_path / "sum"), expected) < 1e-5 * report.norm
        assert report.relative_error < 1e-10
        base = llama()
        biases = Deltas.read(tmp_path / "sum").biases
        assert biases.keys() == expected.keys()
        with torch.no_grad():
            for path, delta in expected.items():
                linear = base.get_submodule(path)
                linear.weight.add_(delta)
                linear.bias = torch.nn.Parameter(biases[path].float())
        loaded = PeftModel.from_pretrained(llama(), tmp_path / "sum").eval()
        torch.testing.assert_close(logits(loaded), logits(base), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("limit", [{"max_rank": 2}, {"rel_tol": 0.3}], ids=str)
    def test_rounded_sum_has_the_reported_error(self, two_ranks, shape, weights, limit, tmp_path):
        report = adapters.combine(two_ranks, weights, shape=shape, **limit, output=tmp_path / "sum")
        expected = dense_sum(two_ranks, weights or [0.5, 0.5])
        assert error(dense(tmp_path / "sum"), expected) == pytest.approx(report.error, rel=1e-4)
        assert 0.01 < report.relative_error < limit.get("rel_tol", 1)
        ranks = {max(train.ranks) for train in Deltas.read(tmp_path / "sum").values()}
        assert max(ranks) <= limit.get("max_rank", 100)


def test_the_shape_is_the_one_that_was_asked_for(two_ranks, tmp_path):
    def shapes(folder):
        return {path: train.raw_shape for path, train in Deltas.read(folder).items()}

    for order in (two_ranks, two_ranks[::-1]):
        adapters.combine(order, shape="first", max_rank=2, output=tmp_path / "first")
        assert shapes(tmp_path / "first") == shapes(order[0])
    adapters.combine(two_ranks, shape="low_rank", output=tmp_path / "low_rank")
    sizes = {path: tuple(train.shape) for path, train in Deltas.read(two_ranks[0]).items()}
    assert shapes(tmp_path / "low_rank") == {path: ((1, m), (n, 1)) for path, (m, n) in sizes.items()}
    adapters.combine(two_ranks, shape=RAW_SHAPE, max_rank=2, output=tmp_path / "given")
    rows, columns = map(tuple, RAW_SHAPE)
    expected = {(24, 16): (rows, columns), (16, 24): (columns, rows)}
    assert shapes(tmp_path / "given") == {path: expected[size] for path, size in sizes.items()}


def test_best_approximation_of_a_rank_is_the_truncated_svd(two_ranks, tmp_path):
    report = adapters.combine(two_ranks, [1, 1], shape="low_rank", max_rank=3, output=tmp_path / "sum")
    singular = [torch.linalg.svdvals(delta) for delta in dense_sum(two_ranks, [1, 1]).values()]
    assert report.error == pytest.approx(float(torch.cat([s[3:] for s in singular]).norm()))


def test_exact_sum_has_the_smallest_ranks(two_ranks, tmp_path):
    adapters.combine([two_ranks[0]] * 2, shape="first", output=tmp_path / "mean")
    ranks = {max(train.ranks) for train in Deltas.read(tmp_path / "mean").values()}
    assert ranks == {max(train.ranks) for train in Deltas.read(two_ranks[0]).values()} == {1}


def test_difference_of_equal_adapters_is_zero(two_ranks, tmp_path):
    for shape in ("low_rank", "first", RAW_SHAPE):
        report = adapters.combine([two_ranks[0]] * 2, [1, -1], shape=shape, output=tmp_path / "zero")
        assert error(dense(tmp_path / "zero"), dict.fromkeys(dense(two_ranks[0]), 0)) < 1e-12
        assert report.error < 1e-12


def test_lora_and_site_modes_are_combined_with_a_train(saved, tmp_path):
    folders = saved(
        TensorTrainConfig(rank=3, **TARGETS),
        LoraConfig(r=2, init_lora_weights=False, **TARGETS),
    )
    for order in (folders, folders[::-1]):
        adapters.combine(order, [1, 1], shape="low_rank", output=tmp_path / "sum")
        assert error(dense(tmp_path / "sum"), dense_sum(folders, [1, 1])) < 1e-5


def test_site_modes_are_written_as_a_delta_for_each_linear(native, tmp_path):
    metatt = {"kind": "tt_lora", "rank": 2, "modes": ["in", "layer", "matrix", "out"], "target_modules": ["q", "v"]}
    folders = [native(fields, seed)[1] for seed, fields in enumerate([metatt, {**metatt, "target_modules": ["q"]}])]
    with pytest.raises(ValueError, match=r'same sites.*combine does it with shape="low_rank"'):
        adapters.combine(folders, output=tmp_path / "sum")
    adapters.combine(folders, [1, 1], shape="low_rank", output=tmp_path / "sum")
    x, y = (Deltas.read(folder).per_linear() for folder in folders)
    found = Deltas.read(tmp_path / "sum")
    for path, train in x.items():
        expected = train.full() + (y[path].full() if path in y else 0)
        torch.testing.assert_close(found[path].full(), expected, rtol=1e-5, atol=1e-6)


class TestRefusals:
    def test_the_message_names_options_of_combine(self, two_ranks, tmp_path):
        with pytest.raises(ValueError, match=r'same raw shape.*combine does it with shape="low_rank" or shape="first"'):
            adapters.combine(two_ranks, output=tmp_path / "sum")
        assert not (tmp_path / "sum").exists()

    @pytest.mark.parametrize(
        ("shape", "sentence"),
        [
            ("lowrank", "Key 'shape' of combine .*got 'lowrank': did you mean 'low_rank'"),
            ("second", "Key 'shape' of combine .*got 'second': known are first, low_rank"),
            (5, "Key 'shape' of combine .*got 5"),
            ([[2, 12]], "Key 'shape' of combine"),
            ([[2, 12], [4, "4"]], "Key 'shape' of combine"),
            ([[2, 12], [4, 5]], "raw_shape"),
            ([[2, 12], [16]], "raw_shape"),
        ],
        ids=str,
    )
    def test_other_shapes_are_refused_and_nothing_is_written(self, two_ranks, shape, sentence, tmp_path):
        with pytest.raises(ConfigurationError, match=sentence):
            adapters.combine(two_ranks, shape=shape, output=tmp_path / "sum")
        assert not (tmp_path / "sum").exists()

    def test_active_adapters_of_different_shapes_have_a_real_remedy(self):
        model = get_peft_model(llama(), TensorTrainConfig(rank=1, **TARGETS))
        model.add_adapter("second", TensorTrainConfig(rank=6, **TARGETS))
        model.base_model.set_adapter(["default", "second"])
        with pytest.raises(ConfigurationError, match=r'combine\(folders, shape="low_rank", output=\.\.\.\)'):
            Deltas.of(model)
