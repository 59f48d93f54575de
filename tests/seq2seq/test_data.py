import json
from pathlib import Path

import datasets
import pytest
import sentencepiece
from datasets import Dataset, DatasetDict
from datasets.arrow_writer import ArrowWriter
from transformers import DataCollatorForSeq2Seq, T5Tokenizer

from seq2seq import data
from seq2seq.data import load_files, load_splits, tokenize
from seq2seq.tasks import TASKS, get_task

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the real task files are not on this machine")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty cache and no hub, as on a machine without network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def tsv(*rows):
    return "".join("\t".join(row) + "\n" for row in rows)


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# A directory: GLUE's official layouts, SuperGLUE's and the hub's

STSB_HEADER = (
    "index",
    "genre",
    "filename",
    "year",
    "old_index",
    "source1",
    "source2",
    "sentence1",
    "sentence2",
    "score",
)
MNLI_HEADER = ("index", "promptID", "pairID", "genre", "sentence1", "sentence2", "label1", "gold_label")
MULTIRC_FLAT = {"paragraph": "P", "question": "Q?", "answer": "x", "label": 1}
MULTIRC_QUESTION = {"question": "Q?", "idx": 0, "answers": [{"text": "x", "idx": 0, "label": 1}]}
RECORD_QUERY = {"query": "@placeholder ran", "answers": [{"start": 0, "end": 1, "text": "Bo"}], "idx": 0}
SQUAD_ARTICLE = {
    "title": "T",
    "paragraphs": [{"context": "C", "qas": [{"question": "Q?", "answers": [{"text": "b c", "answer_start": 0}]}]}],
}

LAYOUTS = [
    (
        "cola",
        "CoLA/{}.tsv",
        "train dev",
        tsv(("gj04", "0", "*", 'He said "go.'), ("gj04", "1", "", "Go.")),
        "unacceptable",
    ),
    ("sst2", "SST-2/{}.tsv", "train dev", tsv(("sentence", "label"), ("fine ", "1")), "positive"),
    (
        "mrpc",
        "MRPC/{}.tsv",
        "train dev",
        "\ufeff" + tsv(("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"), ("0", "7", "8", "A", 'B "c')),
        "not_equivalent",
    ),
    ("stsb", "STS-B/{}.tsv", "train dev", tsv(STSB_HEADER, (*"0123456", 'A "b', "C", "3.500")), "3.6"),
    (
        "qqp",
        "QQP/{}.tsv",
        "train dev",
        tsv(("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), (*"012", "A?", "B?", "1")),
        "duplicate",
    ),
    (
        "mnli",
        "MNLI/{}.tsv",
        "train dev_matched dev_mismatched",
        tsv(MNLI_HEADER, (*"0123", "A", "B", "neutral", "contradiction")),
        "contradiction",
    ),
    (
        "qnli",
        "QNLI/{}.tsv",
        "train dev",
        tsv(("index", "question", "sentence", "label"), ("0", "A?", "B", "entailment")),
        "entailment",
    ),
    (
        "rte",
        "RTE/{}.tsv",
        "train dev",
        tsv(("index", "sentence1", "sentence2", "label"), ("0", "A", "B", "not_entailment")),
        "not_entailment",
    ),
    (
        "wnli",
        "WNLI/{}.tsv",
        "train dev",
        tsv(("index", "sentence1", "sentence2", "label"), ("0", "A", "B", "1")),
        "entailment",
    ),
    ("boolq", "BoolQ/{}.jsonl", "train val", jsonl({"question": "q", "passage": "P", "idx": 0, "label": True}), "True"),
    (
        "cb",
        "CB/{}.jsonl",
        "train val",
        jsonl({"premise": "A", "hypothesis": "B", "label": "neutral", "idx": 0}),
        "neutral",
    ),
    (
        "multirc",
        "MultiRC/{}.jsonl",
        "train val",
        jsonl({"idx": 0, "passage": {"text": "P", "questions": [MULTIRC_QUESTION]}}),
        "True",
    ),
    (
        "record",
        "ReCoRD/{}.jsonl",
        "train val",
        jsonl(
            {"idx": 0, "passage": {"text": "Bo ran", "entities": [{"start": 0, "end": 1}]}, "qas": [RECORD_QUERY] * 2}
        ),
        "Bo",
    ),
    ("squad", "SQuAD/{}-v1.1.json", "train dev", json.dumps({"data": [SQUAD_ARTICLE] * 2, "version": "1.1"}), "b c"),
    (
        "world_sentiment",
        "sentiment/{}.tsv",
        "train validation test",
        tsv(("sentence", "label"), ("A", "0")),
        "bad",
    ),
    ("world_similarity", "similarity/{}.csv", "train validation test", "sentence1,sentence2,score\nA,B,0.4\n", "0.4"),
]


@pytest.mark.parametrize(("task", "pattern", "names", "text", "target"), LAYOUTS, ids=[row[0] for row in LAYOUTS])
@pytest.mark.parametrize("inside", [False, True], ids=["directory of the folder", "the folder itself"])
def test_official_layouts(tmp_path, monkeypatch, task, pattern, names, text, target, inside):
    monkeypatch.setattr("seq2seq.splits.HELD_OUT_ROWS", 0)
    for name in names.split():
        path = write(tmp_path / pattern.format(name), text)
    splits = load_splits(get_task(task), data_dir=path.parent if inside else tmp_path)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"]["target"][0] == target
    assert splits["train"]["source"][0].startswith(f"{task} ")


def test_a_quotation_mark_is_a_letter(tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "CoLA" / f"{name}.tsv", 'x\t1\t\tHe said "go.\nx\t0\t*\tThe "end.\nx\t1\t\tNA\n')
    splits = load_splits(TASKS["cola"], data_dir=tmp_path)
    assert splits["train"]["source"][:] == [
        'cola sentence: He said "go.',
        'cola sentence: The "end.',
        "cola sentence: NA",
    ]


@pytest.mark.parametrize("files", [("{}.parquet",), ("{}-00000-of-00002.parquet", "{}-00001-of-00002.parquet")])
def test_the_hubs_parquet_layout(tmp_path, files):
    (tmp_path / "rte").mkdir()
    for split in ("train", "validation"):
        for name in files:
            rows = {"sentence1": ["A", "B"], "sentence2": ["C", "D"], "label": [1, 0], "idx": [0, 1]}
            Dataset.from_dict(rows).to_parquet(tmp_path / "rte" / name.format(split))
    splits = load_splits(TASKS["rte"], data_dir=tmp_path)
    assert splits["train"]["target"][:] == ["not_entailment", "entailment"] * len(files)
    assert len(splits["validation"]) + len(splits["test"]) == 2 * len(files)


def test_squad_rows_keep_all_their_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.splits.HELD_OUT_ROWS", 1)
    row = {"question": "Q?", "context": "C", "answers": {"text": ["b c", "c"], "answer_start": [0, 1]}}
    for name in ("train", "validation"):
        write(tmp_path / "SQuAD" / f"{name}.jsonl", jsonl(row, row))
    splits = load_splits(TASKS["squad"], data_dir=tmp_path)
    assert splits["test"][0] == {"source": "squad question: Q? context: C", "target": "b c", "answers": ["b c", "c"]}


def test_a_query_without_answers_is_left_out_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("seq2seq.splits.HELD_OUT_ROWS", 0)
    passage = {"text": "Bo ran", "entities": [{"start": 0, "end": 1}]}
    unlabelled = [{"query": "X", "answers": []}, {"query": "Y"}]
    for name in ("train", "val"):
        write(tmp_path / f"{name}.jsonl", jsonl({"passage": passage, "qas": [RECORD_QUERY, *unlabelled]}))
    assert len(load_splits(TASKS["record"], data_dir=tmp_path)["test"]) == 1
    assert "2 rows of validation lack a cell" in caplog.text


def test_rows_that_lack_a_cell_are_left_out_and_counted(tmp_path, caplog):
    header = ("sentence1", "sentence2", "label")
    for name in ("train", "dev"):
        write(tmp_path / "RTE" / f"{name}.tsv", tsv(header, ("A", "B", "entailment"), ("A", "B"), ("A", "B", "C", "D")))
    assert len(load_splits(TASKS["rte"], data_dir=tmp_path)["train"]) == 1
    assert "2 rows of train lack a cell" in caplog.text


@pytest.mark.parametrize(
    ("task", "files", "said"),
    [
        (
            "rte",
            {"RTE/train.tsv": "x"},
            "needs the splits train, validation; .*RTE lacks validation. Put validation.*dev",
        ),
        ("mnli", {"MNLI/train.tsv": "x"}, "lacks validation_mismatched, validation_matched"),
        (
            "rte",
            {"RTE/train.tsv": "a\tlabel\nx\tentailment\n", "RTE/dev.tsv": "a\n"},
            "has a, label and lacks sentence1, sentence2",
        ),
        (
            "sst2",
            {"SST-2/train.tsv": "sentence\tlabel\n", "SST-2/dev.tsv": ""},
            "split 'train' of task 'sst2' has none",
        ),
        (
            "sst2",
            {"SST-2/train.tsv": "sentence\tlabel\nA\t7\n", "SST-2/dev.tsv": ""},
            "has the labels negative, positive",
        ),
        (
            "multirc",
            {"MultiRC/train.jsonl": '{"passage": 1}', "MultiRC/val.jsonl": ""},
            "are nested as in the official files",
        ),
        ("squad", {"SQuAD/train.jsonl": '{"context": 1}', "SQuAD/dev.jsonl": ""}, "has context .KeyError"),
        ("multirc", {"MultiRC/train.jsonl": jsonl(MULTIRC_FLAT | {"idx": 3}), "MultiRC/val.jsonl": ""}, "TypeError"),
    ],
)
def test_a_directory_with_bad_contents_is_answered_in_a_sentence(tmp_path, task, files, said):
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(ValueError, match=said):
        load_splits(get_task(task), data_dir=tmp_path)


def test_data_dir_must_exist(tmp_path):
    with pytest.raises(ValueError, match="data_dir is a directory that exists"):
        load_splits(TASKS["rte"], data_dir=tmp_path / "nowhere")


def test_the_projects_own_tasks_need_no_data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PROJECT", tmp_path)
    for name in ("train", "validation", "test"):
        write(tmp_path / "assets/small_world/tasks/sentiment" / f"{name}.tsv", f"sentence\tlabel\n{name}\t1\n")
    splits = load_splits(TASKS["world_sentiment"])
    assert [splits[name]["source"][:] for name in splits] == [
        [f"world_sentiment sentence: {name}"] for name in ("train", "validation", "test")
    ]
    with pytest.raises(ValueError, match="'world_paraphrase' is the project's own"):
        load_splits(TASKS["world_paraphrase"])


# The cache and the hub


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
    assert splits["train"][1] == {"source": "rte sentence1: train sentence2: B", "target": "not_entailment"}


@pytest.fixture
def hub(monkeypatch):
    """A hub that notes what it is asked: (repository, configuration, whether the network was forbidden)."""
    asked = []
    rows = Dataset.from_dict({"sentence1": ["A", "B"], "sentence2": ["C", "D"], "label": [0, 1]})

    def load_dataset(name, configuration):
        asked.append((name, configuration, datasets.config.HF_HUB_OFFLINE))
        if datasets.config.HF_HUB_OFFLINE:
            raise ConnectionError("not in the cache")
        return DatasetDict(train=rows, validation=rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(data.HfApi, "dataset_info", lambda *_, **__: None)
    return asked


def test_the_hub_comes_after_the_cache_and_is_never_a_local_folder(hub):
    assert len(load_splits(TASKS["rte"])["train"]) == 2
    assert hub == [
        ("hf://datasets/nyu-mll/glue", "rte", True),
        ("hf://datasets/nyu-mll/glue", "rte", False),
    ]


def test_a_directory_spares_cache_and_hub(hub, tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "RTE" / f"{name}.tsv", "sentence1\tsentence2\tlabel\nA\tB\tentailment\n" * 1)
    load_splits(TASKS["rte"], data_dir=tmp_path)
    assert hub == []


def test_a_hub_out_of_reach_is_asked_once_and_the_error_names_all_three_sources(hub, monkeypatch, tmp_path):
    def unreachable(self, repository, timeout):
        raise OSError(f"no route to {repository}")

    monkeypatch.setattr(data.HfApi, "dataset_info", unreachable)
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


def test_offline_the_hub_is_not_asked_at_all(hub, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(data.HfApi, "dataset_info", None)
    with pytest.raises(ValueError, match=r"no data_dir given; the cache .* lacks nyu-mll/glue .*HF_HUB_OFFLINE is set"):
        load_splits(TASKS["rte"])


# Files of one's own


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "json", "parquet"])
def test_own_files_in_every_form(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    rows = Dataset.from_dict({"source": ["a b", "c"], "target": ["x", "y z"], "more": ["1", "2"]})
    if suffix == "parquet":
        rows.to_parquet(path)
    elif suffix in ("json", "jsonl"):
        rows.to_json(path, lines=suffix == "jsonl")
    else:
        rows.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    splits = load_files({"train": path, "validation": str(path)})
    assert list(splits) == ["train", "validation"]
    assert splits["validation"].to_list() == [{"source": "a b", "target": "x"}, {"source": "c", "target": "y z"}]


def test_own_files_may_accept_several_answers(tmp_path):
    path = write(tmp_path / "mine.jsonl", jsonl({"source": "a", "target": "x"}, {"source": "b", "target": ["y", "z"]}))
    assert load_files({"test": path})["test"]["answers"][:] == [["x"], ["y", "z"]]
    assert load_files({"test": path})["test"]["target"][:] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.tsv",
            "input\ttarget\nx\ty\n",
            "need the columns source, target; .*a.tsv has input, target and lacks source",
        ),
        ("a.tsv", "", "a.tsv has none. Give data with rows"),
        ("a.tsv", "source\ttarget\n", "has none"),
        ("a.tsv", "source\ttarget\na\tb\nc\n", "1 rows of .*a.tsv lack one"),
        ("a.tsv", "source\ttarget\na\tb\tc\nd\te\n", "too many cells"),
        ("a.jsonl", '{"source": "a", "target": null}\n{"source": "b", "target": "c"}', "lack one"),
        ("a.jsonl", '{"source": "a", "target": []}\n{"source": "b", "target": "c"}', "lack one"),
        ("a.xlsx", "", "ends in one of"),
        ("a.jsonl", "source", "Mend the file"),
    ],
)
def test_bad_own_files_are_answered_in_a_sentence(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said):
        load_files({"train": write(tmp_path / name, text)})


# Token ids


@pytest.fixture(scope="module", params=["small", "genuine"])
def tokenizer(request, tmp_path_factory):
    """A sentencepiece tokenizer of 31 pieces, and T5's own."""
    if request.param == "genuine":
        if not REAL.is_dir():
            pytest.skip("the T5 vocabulary is not on this machine")
        return T5Tokenizer.from_pretrained(REAL / "tokenizers" / "t5_32k")
    folder = tmp_path_factory.mktemp("tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["One two three four five six seven.", "yes, no, not at all, by no means"]),
        model_prefix=str(folder / "spiece"),
        vocab_size=31,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return T5Tokenizer.from_pretrained(folder)


def test_token_ids_end_with_end_of_sequence_and_cuts_are_counted(tokenizer, caplog):
    texts = ["One.", "One two three four five six seven.", "One two three four five."]
    split = Dataset.from_dict({"source": texts, "target": ["yes", "no", "not at all, by no means"]})
    targets = split["target"][:]
    lengths = sorted(len(ids) for ids in tokenizer(texts)["input_ids"])
    assert lengths[1] < lengths[2]
    tokenized, too_long = tokenize(split, tokenizer, max_source_length=lengths[1], max_target_length=3)
    assert tokenized["input_ids"][:] == tokenizer(texts, truncation=True, max_length=lengths[1])["input_ids"]
    assert tokenized["labels"][:] == tokenizer(targets, truncation=True, max_length=3)["input_ids"]
    assert all(ids[-1] == tokenizer.eos_token_id for column in tokenized.to_dict().values() for ids in column)
    assert too_long == {"source": 1, "target": sum(len(ids) > 3 for ids in tokenizer(targets)["input_ids"])}
    assert f"1 of 3 sources are cut to {lengths[1]} tokens" in caplog.text


def test_token_ids_suit_transformers_collator(tokenizer):
    split = Dataset.from_dict({"source": ["One two three.", "One."], "target": ["yes", "not at all"]})
    tokenized, too_long = tokenize(split, tokenizer, 128, 16)
    batch = DataCollatorForSeq2Seq(tokenizer)(tokenized.to_list())
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids in tokenized["input_ids"]]
    assert (batch["labels"] != -100).sum(1).tolist() == [len(ids) for ids in tokenized["labels"]]
    assert tokenizer.decode(batch["labels"][1], skip_special_tokens=True) == "not at all"
    assert too_long == {"source": 0, "target": 0}


@pytest.mark.parametrize(("lengths", "said"), [((0, 8), "max_source_length = 0"), ((8, -1), "max_target_length = -1")])
def test_a_text_has_room_for_a_token(tokenizer, lengths, said):
    with pytest.raises(ValueError, match=said):
        tokenize(Dataset.from_dict({"source": ["One"], "target": ["two"]}), tokenizer, *lengths)


@needs_real_data
@pytest.mark.parametrize(
    ("task", "sizes"),
    [("cola", (8551, 521, 522)), ("sst2", (66349, 1000, 872)), ("stsb", (5749, 750, 750))],
)
def test_real_glue_folders_become_three_splits(task, sizes):
    splits = load_splits(get_task(task), data_dir=REAL / "glue")
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == sizes


@needs_real_data
def test_real_multirc_questions_are_in_one_split_only(tmp_path):
    for name, real in (("train", "fewglue_train"), ("val", "fewglue_val")):
        write(
            tmp_path / f"{name}.jsonl", (REAL / "super_glue" / "MultiRC" / f"{real}.jsonl").read_text(encoding="utf-8")
        )
    splits = load_splits(TASKS["multirc"], data_dir=tmp_path)
    assert not set(splits["validation"]["group"]) & set(splits["test"]["group"])
    assert len(splits["validation"]) + len(splits["test"]) == 4848
