"""Bad input: one sentence that names the key, what was given and what is allowed; exit status 2; nothing written."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import Seq2SeqTrainingArguments

from run_seq2seq import main
from seq2seq import PROJECT
from seq2seq.configuration.misplaced import MEANT
from seq2seq.configuration.reading import read_experiment
from seq2seq.text.workload import TextWorkload

ARGUMENTS = {field.name for field in fields(Seq2SeqTrainingArguments)}
LORA = {"kind": "tt_lora"}
PAIR = ["world_sentiment", "world_similarity"]


def mixed(**values):
    """What makes a right configuration one of a mixture."""
    files = dict.fromkeys(("train_file", "validation_file", "test_file"))
    return {**files, "mixture": {"tasks": PAIR, **values}}


OWN = {
    "files": {split: f"assets/small_world/tasks/sentiment/{split}.tsv" for split in ("train", "validation", "test")},
    "source": "{sentence}",
    "target": "{label}",
    "labels": ["red", "blue"],
    "metrics": ["accuracy"],
}


def own_task(**values):
    """What makes a right configuration one of a described task, but for its task_name."""
    files = dict.fromkeys(("train_file", "validation_file", "test_file"))
    return {**files, "tasks": {"mine": {**OWN, **values}}}


# (what is set in an otherwise right configuration, words that the sentence must have)
CASES = {
    "unknown key": ({"learning_rat": 0.1}, ["learning_rat", "learning_rate"]),
    "name longer than file systems allow": ({"experiment_name": "n" * 300}, ["experiment_name", "200", "300"]),
    "evaluation first, without rows": (
        {"validation_file": None, "eval_on_start": True},
        ["eval_on_start", "validation_file"],
    ),
    "best model without rows": (
        {"validation_file": None, "load_best_model_at_end": True},
        ["load_best_model_at_end", "validation_file"],
    ),
    "debugging hooks": ({"debug": "underflow_overflow"}, ["debug", "masks"]),
    "unknown run key": ({"experiment_nam": "x"}, ["experiment_nam", "experiment_name"]),
    "key of old transformers": ({"evaluation_strategy": "epoch"}, ["evaluation_strategy", "eval_strategy"]),
    "string for a number": (
        {"per_device_train_batch_size": "eight"},
        ["per_device_train_batch_size", "eight", "integer"],
    ),
    "string that looks like a number": ({"learning_rate": "0.1"}, ["learning_rate", "'0.1'", "number"]),
    "fraction for a whole number": ({"seed": 1.5}, ["seed", "1.5", "integer"]),
    "truth value for a number": ({"num_train_epochs": True}, ["num_train_epochs", "True"]),
    "number for a truth value": ({"do_train": 1}, ["do_train", "1", "boolean"]),
    "number for a string": ({"task_name": 5, "train_file": None}, ["task_name", "5", "string"]),
    "null for a number": ({"max_source_length": None}, ["max_source_length", "None", "integer"]),
    "negative learning rate": ({"learning_rate": -0.1}, ["learning_rate", "-0.1", "at least 0"]),
    "batch size zero": ({"per_device_train_batch_size": 0}, ["per_device_train_batch_size", "0", "at least 1"]),
    "no accumulation steps": ({"gradient_accumulation_steps": 0}, ["gradient_accumulation_steps", "at least 1"]),
    "negative epochs": ({"num_train_epochs": -1}, ["num_train_epochs", "-1", "at least 0"]),
    "max_steps zero": ({"max_steps": 0}, ["max_steps", "0", "from 1"]),
    "target length one": ({"max_target_length": 1}, ["max_target_length", "1", "at least 2"]),
    "more rows than there are": ({"max_train_samples": 97}, ["max_train_samples", "97", "96"]),
    "no rows": ({"max_validation_samples": 0}, ["max_validation_samples", "0", "at least 1"]),
    "unknown strategy": ({"eval_strategy": "sometimes"}, ["eval_strategy", "sometimes", "'epoch'"]),
    "unknown scheduler": ({"lr_scheduler_type": "linar"}, ["lr_scheduler_type", "linar", "'linear'"]),
    "unknown optimizer": ({"optim": "adam"}, ["optim", "'adam'", "'adamw_torch'"]),
    "unknown dtype": ({"dtype": "float16"}, ["dtype", "float16", "'bfloat16'"]),
    "float16": ({"fp16": True}, ["fp16", "True", "bf16"]),
    "metric of another task": ({"metric_for_best_model": "f1"}, ["metric_for_best_model", "f1", "exact_match"]),
    "generation config": ({"generation_config": None}, ["generation_config", "generation_num_beams"]),
    "hub": ({"hub_model_id": "x"}, ["hub_model_id", "folder"]),
    "not a number": ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
    "beta above one": ({"adam_beta1": 2}, ["adam_beta1", "2"]),
    "unknown sampling": ({"train_sampling_strategy": "rando"}, ["train_sampling_strategy", "rando", "'random'"]),
    "optimizer that is not installed": ({"optim": "grokadamw"}, ["optim", "grokadamw"]),
    "interpolation": ({"output_root": "${x"}, ["JSON"]),
    "prediction without rows": ({"test_file": None, "do_predict": True}, ["do_predict", "test_file"]),
    "baselines without rows": (
        {"validation_file": None, "test_file": None, "baselines": ["majority"], "do_eval": False, "eval_strategy": "no"}
        | {"save_strategy": "no", "load_best_model_at_end": False},
        ["baselines", "test_file"],
    ),
    "root below a file": ({"output_root": "/dev/null/x"}, ["output_root", "/dev/null/x"]),
    "fsdp of the past": ({"fsdp": "full_shard"}, ["fsdp", "full_shard"]),
    "fsdp in one process": ({"fsdp": True}, ["fsdp", "distributed training"]),
    "fsdp_config without fsdp": ({"fsdp_config": {}}, ["fsdp_config", "{}", "set fsdp to true"]),
    "fsdp1": ({"fsdp": True, "fsdp_config": {"version": 1}}, ["version", "1", "FSDP1"]),
    "misspelt key of fsdp_config": (
        {"fsdp": True, "fsdp_config": {"cpu_offlod": True}},
        ["cpu_offlod", "fsdp_config", "cpu_offload"],
    ),
    "fsdp_config in a file": ({"fsdp": True, "fsdp_config": "fsdp.json"}, ["fsdp_config", "fsdp.json", "object"]),
    "fsdp without training": ({"fsdp": True, "do_train": False}, ["fsdp", "do_train", "leave fsdp out"]),
    "fsdp and torch.compile": ({"fsdp": True, "torch_compile": True}, ["fsdp", "torch_compile"]),
    "fsdp and export": ({"fsdp": True, "do_export": True}, ["do_export", "seq2seq.export"]),
    "deepspeed": ({"deepspeed": "x.json"}, ["deepspeed", "x.json", "fsdp"]),
    "output_dir": ({"output_dir": "/tmp/x"}, ["output_dir", "output_root"]),
    "resume by hand": ({"resume_from_checkpoint": "x"}, ["resume_from_checkpoint", "by itself"]),
    "wandb in report_to": ({"report_to": "wandb"}, ["report_to", "wandb", "log_to_wandb"]),
    "strategies that exclude each other": ({"save_strategy": "steps"}, ["save_strategy", "'steps'", "'epoch'"]),
    "best model without evaluation": (
        {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": True},
        ["load_best_model_at_end", "eval_strategy"],
    ),
    "nothing to do": ({"do_train": False, "do_eval": False, "do_predict": False}, ["do_train", "do_predict"]),
    "unknown task": (
        {"task_name": "rt", "train_file": None, "validation_file": None, "test_file": None},
        ["rt", "rte"],
    ),
    "task and files": ({"task_name": "rte"}, ["task_name", "train_file"]),
    "neither task nor files": (
        {"train_file": None, "validation_file": None, "test_file": None},
        ["task_name", "train_file"],
    ),
    "missing file": ({"train_file": "/nowhere/train.tsv"}, ["train_file", "/nowhere/train.tsv"]),
    "missing data directory": (
        {"task_name": "rte", "data_dir": "/nowhere", "train_file": None, "validation_file": None, "test_file": None},
        ["data_dir", "/nowhere"],
    ),
    "a data_name without files": (
        {"data_name": "mine", "task_name": "rte", "train_file": None, "validation_file": None, "test_file": None},
        ["data_name", "'mine'", "leave it out"],
    ),
    "an empty data_name": (
        {"data_name": " "},
        ["data_name", "' '", "leave it out"],
    ),
    "training without rows": ({"train_file": None}, ["do_train", "train_file"]),
    "missing model": ({"model_name_or_path": "no-such-model"}, ["model_name_or_path", "no-such-model"]),
    "missing model directory": ({"model_name_or_path": "/nowhere/model"}, ["model_name_or_path", "/nowhere/model"]),
    "missing adapter": ({"adapter_path": "/nowhere/adapter"}, ["adapter_path", "/nowhere/adapter"]),
    "name with a slash": ({"experiment_name": "../x"}, ["experiment_name", "../x", "letters"]),
    "empty name": ({"experiment_name": ""}, ["experiment_name", "letters"]),
    "unknown baseline": ({"baselines": ["majorities"]}, ["baselines", "majorities", "'majority'"]),
    "bag of words on free text": ({"baselines": ["bag_of_words"]}, ["baselines", "bag of words", "free text"]),
    "unknown kind": ({"adapter": {"kind": "tt_lra"}}, ["kind", "tt_lra", "tt_lora"]),
    "no kind": ({"adapter": {"rank": 4}}, ["kind", "None"]),
    "adapter as a string": ({"adapter": "tt_lora"}, ["adapter", "'tt_lora'", "kind"]),
    "empty list of adapters": ({"adapter": []}, ["adapter", "empty list"]),
    "unknown field": ({"adapter": {**LORA, "rnk": 4}}, ["rnk", "rank", "tt_lora"]),
    "field of another kind": ({"adapter": {**LORA, "reduction_factor": 4}}, ["reduction_factor", "tt_lora"]),
    "rank zero": ({"adapter": {**LORA, "rank": 0}}, ["rank", "0", "positive integer"]),
    "rank as a string": ({"adapter": {**LORA, "rank": "eight"}}, ["rank", "eight", "integer"]),
    "rank list of a wrong length": ({"adapter": {**LORA, "rank": [2, 2, 2]}}, ["rank", "[2, 2, 2]", "2 ranks"]),
    "no cores": ({"adapter": {**LORA, "d": 0}}, ["'d'", "0", "positive integer"]),
    "shape that does not factor": (
        {"adapter": {**LORA, "target_modules": ["wi"], "raw_shape": [[4, 5], [4, 8]]}},
        ["raw_shape", "20", "64"],
    ),
    "shape with unequal lists": (
        {"adapter": {**LORA, "raw_shape": [[4, 4], [4, 4, 2]]}},
        ["raw_shape", "equally many"],
    ),
    "core that is not there": ({"adapter": {**LORA, "frozen_cores": [3]}}, ["frozen_cores", "3", "0 to 2"]),
    "all cores frozen": ({"adapter": {**LORA, "frozen_cores": [0, 1, 2]}}, ["frozen_cores", "train"]),
    "core frozen and disabled": (
        {"adapter": {**LORA, "frozen_cores": [0], "disabled_cores": [0]}},
        ["disabled_cores", "0"],
    ),
    "unknown sublayer": (
        {"adapter": {**LORA, "sublayers": ["attention"]}},
        ["sublayers", "attention", "self_attention"],
    ),
    "unknown stack": ({"adapter": {**LORA, "stacks": ["encode"]}}, ["stacks", "encode", "'encoder'"]),
    "no stack": ({"adapter": {**LORA, "stacks": []}}, ["stacks", "empty list"]),
    "layer that is not there": ({"adapter": {**LORA, "layers": [2]}}, ["layers", "2", "0 to 1"]),
    "linear that is not there": ({"adapter": {**LORA, "target_modules": ["wi_0"]}}, ["target_modules", "wi_0", "'wi'"]),
    "place that is not there": (
        {"adapter": {"kind": "tt_adapter", "sublayers": ["cross_attention"], "stacks": ["encoder"]}},
        ["sublayers", "cross_attention", "decoder"],
    ),
    "dropout of one": ({"adapter": {**LORA, "dropout": 1.0}}, ["dropout", "1.0", "probability"]),
    "two factors": (
        {"adapter": {"kind": "bottleneck", "reduction_factor": 2, "expansion_factor": 2}},
        ["reduction_factor", "expansion_factor"],
    ),
    "too much reduction": (
        {"adapter": {"kind": "bottleneck", "reduction_factor": 64}},
        ["reduction_factor", "64", "32"],
    ),
    "unknown activation": ({"adapter": {"kind": "bottleneck", "activation": "gelo"}}, ["activation", "gelo", "gelu"]),
    "the same adapter twice": ({"adapter": [LORA, LORA]}, ["kind", "once"]),
    "two forms of one norm": ({"adapter": [{"kind": "scale_norm"}, {"kind": "tt_layer_norm"}]}, ["sublayers", "one"]),
    "mixture as a list": ({**mixed(), "mixture": PAIR}, ["mixture", "world_sentiment", "object"]),
    "mixture and files": ({"mixture": {"tasks": PAIR}}, ["task_name", "mixture", "world_sentiment", "train_file"]),
    "mixture and task": ({**mixed(), "task_name": "rte"}, ["task_name", "'rte'", "mixture"]),
    "unknown key of the mixture": (mixed(weight="equal"), ["mixture", "weight", "weights"]),
    "mixture without tasks": ({**mixed(), "mixture": {"weights": "equal"}}, ["tasks", "weights"]),
    "mixture of one task": (mixed(tasks=["rte"]), ["tasks", "rte", "two", "task_name"]),
    "unknown task of the mixture": (mixed(tasks=["rte", "world_sentimant"]), ["tasks", "world_sentiment"]),
    "a task twice": (mixed(tasks=["rte", "rte"]), ["tasks", "'rte' twice", "weight"]),
    "unknown weights": (mixed(weights="equals"), ["weights", "equals", "'proportional'"]),
    "no weight for a task": (mixed(weights={"world_sentiment": 1}), ["weights", "world_similarity"]),
    "weight of another task": (mixed(weights={**dict.fromkeys(PAIR, 1), "rte": 1}), ["weights", "rte"]),
    "negative weight": (mixed(weights=dict.fromkeys(PAIR, -1)), ["weights", "-1", "above 0"]),
    "temperature without its rule": (mixed(temperature=2), ["temperature", "2", "proportional"]),
    "the rule without a temperature": (mixed(weights="temperature"), ["temperature", "None"]),
    "temperature of zero": (mixed(weights="temperature", temperature=0), ["temperature", "0", "above 0"]),
    "unknown batches": (mixed(batches="one"), ["batches", "'one'", "'one_task'"]),
    "own adapters in mixed batches": (mixed(adapters="per_task"), ["batches", "'mixed'", "'one_task'"]),
    "own adapters of a kind for all": (
        {**mixed(adapters="per_task", batches="one_task"), "adapter": [LORA, {"kind": "layer_norm"}]},
        ["adapters", "per_task", "layer_norm", "share"],
    ),
    "mixture with a sampling of its own": (
        {**mixed(), "train_sampling_strategy": "sequential"},
        ["train_sampling_strategy", "sequential", "mixture"],
    ),
    "batches of one task in a size to be found": (
        {**mixed(batches="one_task"), "auto_find_batch_size": True},
        ["auto_find_batch_size", "one task"],
    ),
    "own adapters with unused parameters unlooked for": (
        {**mixed(batches="one_task", adapters="per_task"), "ddp_find_unused_parameters": False},
        ["ddp_find_unused_parameters", "False"],
    ),
    "metric of no task of the mixture": (
        {**mixed(), "metric_for_best_model": "world_sentiment/f1"},
        ["metric_for_best_model", "world_sentiment/f1", "world_sentiment/accuracy"],
    ),
    "bag of words of free text in a mixture": (
        {**mixed(tasks=["world_sentiment", "squad"]), "baselines": ["bag_of_words"]},
        ["baselines", "squad", "free text"],
    ),
    "folder of one task for a mixture": (
        {**mixed(), "data_dir": str(PROJECT / "assets/small_world/tasks/sentiment")},
        ["data_dir", "sentiment", "above"],
    ),
    "a task without a batch": (
        {**mixed(weights=dict(zip(PAIR, (1, 1000), strict=True)), batches="one_task"), "max_train_samples": 20},
        ["weights", "world_sentiment", "16 rows"],
    ),
    "field of the adapter at the top": ({"rank": 4}, ["'rank'", "'adapter'", "adapter.rank=4"]),
    "truth value of the adapter at the top": (
        {"adapter": [LORA, {"kind": "tt_layer_norm"}], "scaling": 2},
        ["'scaling'", "adapter[0].scaling=2"],
    ),
    "field of PEFT's at the top": (
        {"adapter": {"kind": "peft:LORA"}, "lora_alpha": 16},
        ["'lora_alpha'", "adapter.lora_alpha=16"],
    ),
    "field of another kind at the top": (
        {"adapter": {"kind": "bitfit"}, "reduction_factor": 4},
        ["'reduction_factor'", "bottleneck", "'bitfit'", "adapter.kind"],
    ),
    "field of an adapter of an unknown kind": (
        {"adapter": {"kind": "lora"}, "rank": 4},
        ["'rank'", "'lora'", "tt_lora"],
    ),
    "field of an adapter that is not given": ({"adapter": None, "rank": 4}, ["'rank'", "tt_lora", "no adapter"]),
    "another name of a key": ({"lr": 0.1}, ["'lr'", "learning_rate"]),
    "another name of a value": ({"group_by_length": True}, ["'group_by_length'", "train_sampling_strategy"]),
    "PEFT's name of a field": ({"lora_dropout": 0.1}, ["'lora_dropout'", "adapter.dropout"]),
    "PEFT's name of the kind": ({"peft_type": "LORA"}, ["'peft_type'", "adapter.kind", "peft:<TYPE>"]),
    "another name of a field of the adapter": ({"r": 4}, ["'r'", "adapter.rank"]),
    "PEFT's name in an adapter": ({"adapter": {**LORA, "lora_alpha": 4}}, ["'lora_alpha'", "adapter.scaling", "/ r"]),
    "kind at the top": ({"kind": "tt_lora"}, ["'kind'", "adapter.kind"]),
    "labels at the top": ({"labels": ["a", "b"]}, ["'labels'", "tasks.<name>.labels"]),
    "key of the run in the adapter": ({"adapter": {**LORA, "learning_rate": 1}}, ["'learning_rate'", "top level"]),
    "key of the run in a list of adapters": ({"adapter": [LORA, {**LORA, "seed": 1}]}, ["'seed'", "adapter[1]"]),
    "key of the mixture at the top": ({**mixed(), "weights": "equal"}, ["'weights'", "mixture.weights=equal"]),
    "key of the run in the mixture": (mixed(data_dir="x"), ["'data_dir'", "mixture", "top level"]),
    "adapters for adapter": ({"adapters": LORA, "adapter": None}, ["'adapters'", "did you mean 'adapter'"]),
    "kind of PEFT": ({"adapter": {"kind": "lora"}}, ["'lora'", "peft:LORA"]),
    "own task without a name": (own_task(), ["task_name", "'mine'"]),
    "own task named as a built-in one": (
        {**own_task(), "tasks": {"rte": OWN}, "task_name": "rte"},
        ["'rte'", "built-in"],
    ),
    "own task with another's name": ({**own_task(), "task_name": "mne"}, ["task_name", "'mne'", "did you mean 'mine'"]),
    "own task with an unknown key": (
        {**own_task(label=["no", "yes"]), "task_name": "mine"},
        ["'label'", "did you mean 'labels'"],
    ),
    "own task without its file": (
        {**own_task(files={**OWN["files"], "test": "/nowhere.tsv"}), "task_name": "mine"},
        ["tasks.mine.files.test", "/nowhere.tsv"],
    ),
    "own task without rows to train on": (
        {**own_task(files={"test": OWN["files"]["test"]}), "task_name": "mine"},
        ["do_train", "tasks.mine.files.train"],
    ),
    "own task without a column": (
        {**own_task(source="{text}"), "task_name": "mine"},
        ["tasks.mine", "row 1 of", "sentence", "without text"],
    ),
    "own task with a cell that is no label": (
        {**own_task(labels={"0": "no", "2": "yes"}), "task_name": "mine"},
        ["tasks.mine", "'1' in row ", "'0', '2'"],
    ),
    "own task and a data directory": ({**own_task(), "task_name": "mine", "data_dir": "/tmp"}, ["data_dir", "/tmp"]),
    "own tasks as a list": ({**own_task(), "tasks": [OWN]}, ["'tasks'", "object"]),
    "labels that the tokenizer cannot write": (
        {**own_task(labels=["red", "{blue}"]), "task_name": "mine"},
        ["model_name_or_path", "'mine'", "'{blue}'"],
    ),
    "weights whose sum overflows": (
        mixed(weights=dict(zip(PAIR, (1e308, 1e-300), strict=True))),
        ["weights", "share of 0.00%", "world_similarity"],
    ),
    "nothing trains": ({"adapter": {"kind": "layer_norm", "trainable": False}}, ["adapter", "train"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_configuration_is_refused_in_one_sentence(case, values, tmp_path, capsys):
    changes, words = CASES[case]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**values, **changes}))
    assert_refused([str(path)], words, tmp_path, capsys)


OVERRIDES = {
    "no equals sign": ("learning_rate", ["learning_rate", "key=value"]),
    "unknown key": ("learnin_rate=1", ["learnin_rate", "learning_rate"]),
    "unknown field of the adapter": ("adapter.rnk=4", ["rnk", "rank"]),
    "field of the adapter": ("rank=4", ["'rank'", "adapter.rank=4"]),
    "kind of PEFT": ("adapter.kind=LoRA", ["'LoRA'", "peft:LORA"]),
    "deep nesting": ("adapter=" + "[" * 300 + "]" * 300, ["deep"]),
    "wrong type": ("seed=many", ["seed", "many"]),
    "index of an adapter that is no list": ("adapter[3].rank=2", ["'3'", "tt_lora"]),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_a_bad_override_is_refused_in_one_sentence(case, config_file, tmp_path, capsys):
    override, words = OVERRIDES[case]
    assert_refused([str(config_file), override], words, tmp_path, capsys)


FILES = {
    "no such file": (None, ["not a file"]),
    "empty": ("", ["JSON"]),
    "no JSON": ("{'a': 1}", ["JSON"]),
    "a list": ("[]", ["object", "list"]),
    "deep nesting": ('{"a": ' * 2000 + "1" + "}" * 2000, ["JSON"]),
    "nesting that JSON can read": ('{"a": ' * 300 + "1" + "}" * 300, ["JSON", "deep"]),
    "a key twice": ('{"seed": 1, "seed": 2}', ["seed", "more than once"]),
    "no name": ("{}", ["experiment_name"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_refused_in_one_sentence(case, tmp_path, capsys):
    text, words = FILES[case]
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    assert_refused([str(path)], words, tmp_path, capsys)


DATA = {
    "no columns": ("sentence\tlabel\na\tb\n", ["train_file", "source", "target", "sentence"]),
    "no rows": ("source\ttarget\n", ["train.tsv"]),
    "empty": ("", ["train.tsv"]),
    "a row without target": ("source\ttarget\na\n", ["train.tsv"]),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_are_refused_in_one_sentence(case, values, tmp_path, capsys):
    text, words = DATA[case]
    (tmp_path / "train.tsv").write_text(text)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**values, "train_file": str(tmp_path / "train.tsv")}))
    assert_refused([str(path)], words, tmp_path, capsys)


def assert_refused(arguments: list[str], words: list[str], directory: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(directory.rglob("*"))
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    sentence = lines[-1]
    assert sentence.startswith("Refused: ")
    assert sentence.endswith(".")
    assert [word for word in words if word not in sentence] == []
    assert sorted(directory.rglob("*")) == before


@pytest.mark.parametrize("text", ["[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000], ids=["lists", "objects"])
def test_json_nested_2000_deep_is_refused_in_a_file_and_in_an_override(text, config_file, tmp_path, capsys):
    path = tmp_path / "deep.json"
    path.write_text(f'{{"experiment_name": "deep", "adapter": {text}}}')
    for arguments in (
        [str(path)],
        [str(config_file), f"adapter={text}"],
        [str(config_file), f"sweep.adapter=[{text}]"],
    ):
        assert main(arguments) == 2
        *_, sentence = capsys.readouterr().err.strip().splitlines()
        assert sentence.startswith("Refused: ")
        assert len(sentence) < 400


def test_every_other_name_is_unknown_and_means_keys_that_exist(values):
    known = {*read_experiment(values).to_dict(), "tasks"}
    assert not known & {*MEANT, *TextWorkload.other_names}
    for meant in (*MEANT.values(), *TextWorkload.other_names.values()):
        names = re.split(r",? or |, | and ", meant.partition(", which")[0])
        assert {name.partition(".")[0] for name in names if name} <= known | ARGUMENTS, meant
