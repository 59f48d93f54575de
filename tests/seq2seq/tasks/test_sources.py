"""The sources of a task's rows: a directory, the local cache, the hub, in this order."""

import datasets
import pytest
from datasets import Dataset, DatasetDict
from datasets.arrow_writer import ArrowWriter

from seq2seq.tasks import sources
from seq2seq.tasks.registry import TASKS
from seq2seq.tasks.sources import load_splits
from tests.seq2seq.tasks.data_files import write

pytestmark = pytest.mark.usefixtures("no_network")


def test_the_cache_is_read_without_network(tmp_path):
    folder = tmp_path / "cache" / "nyu-mll___glue" / "rte" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    features = datasets.Features(
        sentence1=datasets.Value("string"),
        sentence2=datasets.Value("string"),
        label=datasets.ClassLabel(names=["entailment", "not_entailment"]),
    )
    parts = datasets.SplitDict(dataset_name="glue")
    for name in ("train", "validation"):
        with ArrowWriter(features=features, path=str(folder / f"glue-{name}.arrow")) as writer:
            for label in (0, 1):
                writer.write({"sentence1": name, "sentence2": "B", "label": label})
            rows, size = writer.finalize()
        parts.add(datasets.SplitInfo(name=name, num_bytes=size, num_examples=rows, dataset_name="glue"))
    info = datasets.DatasetInfo(
        features=features, builder_name="parquet", dataset_name="glue", config_name="rte", version="0.0.0", splits=parts
    )
    info.write_to_directory(str(folder))
    splits = load_splits(TASKS["rte"], data_dir=tmp_path)
    assert splits["train"][1] == {"source": "rte sentence1: train sentence2: B", "target": "not_entailment", "row": 2}


@pytest.fixture
def hub(monkeypatch):
    """A fake hub that records its requests: (repository, configuration, whether it was offline)."""
    requests = []
    rows = Dataset.from_dict({"sentence1": ["A", "B"], "sentence2": ["C", "D"], "label": [0, 1]})

    def load_dataset(name, configuration):
        requests.append((name, configuration, datasets.config.HF_HUB_OFFLINE))
        if datasets.config.HF_HUB_OFFLINE:
            raise ConnectionError("not in the cache")
        return DatasetDict(train=rows, validation=rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources.HfApi, "dataset_info", lambda *_, **__: None)
    return requests


def test_the_hub_is_queried_after_the_cache_and_never_as_a_local_path(hub):
    assert len(load_splits(TASKS["rte"])["train"]) == 2
    assert hub == [
        ("hf://datasets/nyu-mll/glue", "rte", True),
        ("hf://datasets/nyu-mll/glue", "rte", False),
    ]


def test_a_directory_takes_precedence_over_cache_and_hub(hub, tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "RTE" / f"{name}.tsv", "sentence1\tsentence2\tlabel\n" + "A\tB\tentailment\n" * 2)
    load_splits(TASKS["rte"], data_dir=tmp_path)
    assert hub == []


def test_an_unreachable_hub_is_queried_once_and_the_error_lists_all_sources(hub, monkeypatch, tmp_path):
    def unreachable(self, repository, timeout):
        raise OSError(f"no route to {repository}")

    monkeypatch.setattr(sources.HfApi, "dataset_info", unreachable)
    with pytest.raises(ValueError, match="directory, the local cache or the hub, in this order") as error:
        load_splits(TASKS["rte"], data_dir=tmp_path)
    for part in (
        str(tmp_path),
        str(datasets.config.HF_DATASETS_CACHE),
        "OSError: no route to nyu-mll/glue",
        "RTE/train",
    ):
        assert part in str(error.value)
    assert [offline for _, _, offline in hub] == [True]


def test_the_hub_is_not_queried_offline(hub, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources.HfApi, "dataset_info", None)
    with pytest.raises(ValueError, match=r"got no data_dir, a cache .* without nyu-mll/glue .*HF_HUB_OFFLINE is set"):
        load_splits(TASKS["rte"])
