"""combine and compare: folders in, a folder or a table out, with the values of the deltas in them."""

import json

import pytest
import torch

import adapters
from adapters import CheckpointError, Deltas

LORA = {"kind": "tt_lora", "rank": 2, "d": 2, "delta_bias": "dense"}


@pytest.fixture
def folders(native):
    """Three adapters that differ in their values only."""
    return [native(LORA, seed)[1] for seed in (1, 2, 3)]


@pytest.mark.parametrize("weights", [None, [1, -1, 0.5]], ids=str)
def test_a_combination_is_that_of_the_deltas(folders, tmp_path, weights):
    report = adapters.combine(folders, weights, output=tmp_path / "out")
    x, y, z = map(Deltas.read, folders)
    expected = (x + y + z) / 3 if weights is None else x - y + 0.5 * z
    assert Deltas.read(tmp_path / "out").distance(expected) < 1e-6 * expected.norm()
    assert report.relative_error < 1e-14
    assert {linear.ranks for linear in report.linears.values()} == {(1, 6, 1)}


def test_a_combination_keeps_the_sample_of_its_base(folders, tiny_t5, tmp_path, caplog):
    adapters.combine(folders, output=tmp_path / "out")
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (folders[0], tmp_path / "out")]
    assert configs[0]["base_weights"] == configs[1]["base_weights"]
    adapters.load(tiny_t5(), tmp_path / "out")
    assert caplog.text == ""
    base = tiny_t5()
    base.load_state_dict({name: 2 * tensor for name, tensor in base.state_dict().items()})
    adapters.load(base, tmp_path / "out")
    assert f"other weights than that of {tmp_path / 'out'}" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", [adapters.compare, lambda folders: adapters.combine(folders, output=folders[0])])
def test_adapters_of_bases_with_other_weights_are_a_warning(act, dtype, folders, tiny_t5, tmp_path, caplog):
    adapters.save(adapters.attach(tiny_t5().to(dtype), LORA), tmp_path / "same")
    act([*folders, tmp_path / "same"])
    assert caplog.text == ""
    base = tiny_t5()
    base.decoder.final_layer_norm.weight.data += 0.1
    adapters.save(adapters.attach(base.to(dtype), LORA), tmp_path / "other")
    act([*folders, tmp_path / "other"])
    assert f"got {tmp_path / 'other'}, which was trained on a base with other weights than {folders[0]}" in caplog.text


def test_a_rounded_combination_has_the_reported_error(folders, tmp_path):
    report = adapters.combine(folders, [1, 1, 1], max_rank=3, output=tmp_path / "out")
    x, y, z = map(Deltas.read, folders)
    written = Deltas.read(tmp_path / "out")
    assert {train.ranks for train in written.values()} == {(1, 3, 1)}
    assert written.distance(x + y + z) == pytest.approx(report.error, rel=1e-4)
    assert report.error > 0.1


def test_a_combination_has_the_dropout_of_the_first_adapter(native, folders, tiny_t5, tmp_path):
    _, first = native({**LORA, "dropout": 0.25})
    adapters.combine([first, *folders], output=tmp_path / "out")
    (attachment,) = adapters.attachments(adapters.load(tiny_t5(), tmp_path / "out"))
    assert attachment.config.dropout == 0.25


def test_an_adapter_can_be_replaced_by_a_multiple_of_itself(folders):
    before = Deltas.read(folders[0])
    adapters.combine(folders[:1], [2], output=folders[0])
    assert Deltas.read(folders[0]).distance(2 * before) < 1e-6 * before.norm()


@pytest.mark.parametrize(
    ("count", "options", "named"),
    [
        (0, {}, "at least one"),
        (1, {"weights": [1, 2]}, "1 adapters and 2 weights"),
        (1, {"weights": [float("inf")]}, "finite number"),
        (1, {"max_rank": 0}, "max_rank"),
        (1, {"rel_tol": -1.0}, "rel_tol"),
    ],
)
def test_invalid_arguments_write_nothing(native, tmp_path, count, options, named):
    with pytest.raises(ValueError, match=named):
        adapters.combine([native(LORA)[1]] * count, **options, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_writes_nothing(folders, tmp_path):
    with pytest.raises(CheckpointError, match="check the path"):
        adapters.combine([folders[0], tmp_path / "nowhere"], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_comparison_is_that_of_the_deltas(folders, tmp_path):
    adapters.combine(folders[:2], [1, 1], output=tmp_path / "sum")
    names = [*folders, tmp_path / "sum"]
    comparison = adapters.compare(names)
    vectors = [Deltas.read(name) for name in names]
    assert comparison.names == tuple(map(str, names))
    assert comparison.norms == pytest.approx([x.norm() for x in vectors])
    for a, x in enumerate(vectors):
        for b, y in enumerate(vectors):
            assert comparison.cosines[a][b] == pytest.approx(x.cosine(y), abs=1e-12)
            assert comparison.distances[a][b] == pytest.approx(x.distance(y), abs=1e-12)
    assert comparison.cosines[3][0] > 0.5 > abs(comparison.cosines[0][1])


def test_an_untrained_adapter_has_a_distance_but_no_cosine(tiny_t5, folders, tmp_path):
    torch.manual_seed(0)
    adapters.save(adapters.attach(tiny_t5(), LORA), tmp_path / "untrained")
    comparison = adapters.compare([folders[0], tmp_path / "untrained"])
    assert comparison.norms[1] == 0
    assert comparison.cosines == ((pytest.approx(1.0), None), (None, None))
    assert comparison.distances[0][1] == pytest.approx(comparison.norms[0])


def test_a_comparison_prints_as_a_table(folders):
    comparison = adapters.compare(folders[:2])
    text = str(comparison).replace("\n", "")
    assert f"{comparison.cosines[0][1]:.4f}" in text
    assert f"{comparison.distances[0][1]:.4g}" in text
    assert "1:" in text
    assert "cosine with 2" in text


@pytest.fixture
def by_task(tiny_t5, trained, tmp_path):
    """A function from tasks to the folder of a model with one adapter for each of them."""

    def make(*tasks):
        model = tiny_t5()
        for task in tasks:
            adapters.attach(model, LORA, task)
        folder = tmp_path / "-".join(map(str, tasks))
        adapters.save(trained(model), folder)
        return folder

    return make


def test_the_modules_of_the_given_task_are_read(by_task, tmp_path):
    folders = [by_task("a"), by_task(None)]
    adapters.combine(folders, [1, 1], task="a", output=tmp_path / "out")
    x, y = (Deltas.read(folder, "a") for folder in folders)
    assert Deltas.read(tmp_path / "out").distance(x + y) < 1e-6 * (x + y).norm()
    several = [*folders, by_task("b", "a"), by_task("a", None)]
    comparison = adapters.compare(several, task="a")
    assert comparison.norms == pytest.approx([Deltas.read(folder, "a").norm() for folder in several])


@pytest.mark.parametrize(("tasks", "task", "named"), [(("a", "b"), "a", "'b'"), ((None, "a"), None, "'a'")])
def test_a_folder_with_modules_for_several_tasks_is_not_combined(by_task, tmp_path, tasks, task, named):
    several = by_task(*tasks)
    for given in ([several], [by_task(task), several]):
        with pytest.raises(CheckpointError, match=f"one task.*{named}"):
            adapters.combine(given, task=task, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_of_a_replaced_adapter_is_removed(folders, tiny_t5):
    model = adapters.load(tiny_t5(), folders[0])
    adapters.save(model, folders[0])
    assert (folders[0] / "README.md").is_file()
    (folders[1] / "README.md").write_text("My own.")
    for folder in folders[:2]:
        adapters.combine(folders, output=folder)
    assert not (folders[0] / "README.md").exists()
    assert (folders[1] / "README.md").read_text() == "My own."
