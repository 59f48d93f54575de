"""What a causal run refuses: keys, texts and models that do not fit; nothing is written."""

import shutil

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertLMHeadModel, LlamaConfig, LlamaModel

import adapters
from adapters import ConfigurationError
from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from tests.seq2seq.causal_models import save_model
from third_party.models.looped import loop

SIZES = {"vocab_size": 257, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("kind", "changes", "parts"),
    [
        ("task", {"template": "{source}"}, ["'template'", "{target} at its end"]),
        ("task", {"template": "{target} {source}"}, ["'template'", "at its end"]),
        ("task", {"template": "{sorce} {source} {target}"}, ["'template'", "{sorce}", "'tasks'"]),
        ("task", {"max_target_length": 5}, ["'max_target_length'", "'green' has 7"]),
        ("task", {"max_source_length": 4}, ["'max_source_length'", "the template alone has 8"]),
        ("task", {"scoring": "guess"}, ["'scoring'", "'guess'"]),
        ("task", {"baselines": ["unigram"]}, ["'baselines'", "there is no corpus"]),
        ("task", {"task_name": None, "train_file": "a.txt"}, ["'train_file'", "corpus.train=a.txt"]),
        ("task", {"forgetting_file": "none.txt"}, ["'forgetting_file'", "none.txt"]),
        ("task", {"forgetting_file": __file__}, ["'forgetting_file'", "suffixes"]),
        ("task", {"max_source_length": 2040}, ["'max_source_length' plus 'max_target_length'", "at most 2048"]),
        ("corpus", {"window": 2049}, ["'window'", "at most 2048", "got 2049"]),
        ("task", {"model_name_or_path": "./nowhere"}, ["'model_name_or_path'", "not a directory"]),
        ("task", {"model_name_or_path": "assets/small_world/backbone"}, ["'model_name_or_path'", "encoder-decoder"]),
        ("task", {"window": 2}, ["'window'", "at least 3"]),
        ("task", {"max_length": 7}, ["'max_length'", "max_source_length"]),
        ("corpus", {"task_name": "rte"}, ["'task_name'", "with a corpus"]),
        ("corpus", {"packing": True}, ["'packing'", "with a corpus"]),
        ("corpus", {"max_train_samples": 3}, ["'max_train_samples'", "corpus.max_tokens"]),
        ("corpus", {"stride": 32}, ["'stride'", "at most 31"]),
        ("corpus", {"corpus": {}}, ["'corpus'", "train"]),
        ("corpus", {"corpus": "wiki"}, ["'corpus'", "wiki2"]),
        ("corpus", {"corpus": "dataset:o/stories"}, ["'corpus'", "by split"]),
        ("corpus", {"corpus": {"train": "a*.txt"}}, ["'corpus.train'", "matches no file"]),
        ("corpus", {"corpus": {"trian": "a.txt"}}, ["'trian'", "train"]),
        ("corpus", {"corpus": {"train": __file__}}, ["'corpus.train'", "suffixes"]),
        ("corpus", {"last_words": "none.txt"}, ["'last_words'", "matches no file"]),
        ("task", {"last_words": "lambada"}, ["'last_words'", "with a corpus"]),
        ("corpus", {"distill": {"weight": 0}}, ["'weight'", "above 0"]),
        ("corpus", {"distill": {"model": "/nowhere"}}, ["'distill.model'", "/nowhere"]),
        ("corpus", {"distill": 0.5}, ["'distill'", "is an object"]),
        ("corpus", {"metric_for_best_model": "accuracy"}, ["'metric_for_best_model'", "perplexity"]),
        ("corpus", {"baselines": ["majority"]}, ["'baselines'", "a corpus has no answers"]),
        ("corpus", {"train_sampling_strategy": "sequential"}, ["'train_sampling_strategy'", "seeded"]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(kind, changes, parts, task_values, corpus_values, tmp_path):
    values = {**(task_values if kind == "task" else corpus_values), **changes}
    with pytest.raises(ConfigurationError) as refusal:
        run_experiment(read_experiment(values))
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: BertLMHeadModel(BertConfig(**SIZES, num_attention_heads=2)), "each token of BertLMHeadModel sees"),
        (lambda: LlamaModel(LlamaConfig(**SIZES, num_attention_heads=2)), "lack lm_head.weight, which would be random"),
    ],
    ids=["an encoder", "a body"],
)
def test_what_is_no_decoder_with_a_head_is_refused(model, reason, decoder, task_values, tmp_path):
    """It would see the answer that it is scored for, or answer at random."""
    shutil.copytree(decoder, tmp_path / "other")
    model().save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=rf"'model_name_or_path' .*{reason}"):
        run_experiment(read_experiment({**task_values, "model_name_or_path": str(tmp_path / "other")}))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("model_type", ["opt", "bloom"])
def test_packing_is_refused_where_rows_would_see_each_other(model_type, task_values, tmp_path):
    folder = save_model(tmp_path / "leaking", model_type)
    with pytest.raises(ConfigurationError, match=rf"'packing'.*'{model_type}'"):
        run_experiment(read_experiment({**task_values, "packing": True, "model_name_or_path": str(folder)}))
    assert not (tmp_path / "outputs").exists()


def test_the_forgotten_text_fits_the_model_and_one_adapter(task_values, text):
    forgotten = {**task_values, "forgetting_file": str(text / "test.txt")}
    with pytest.raises(ConfigurationError, match="'window' must be at most 2048"):
        run_experiment(read_experiment({**forgotten, "window": 2049}))
    tasks = dict.fromkeys(("colours", "again"), task_values["tasks"]["colours"])
    mixture = {"tasks": [*tasks], "adapters": "per_task", "batches": "one_task"}
    adapter = {"kind": "tt_lora", "rank": 2}
    with pytest.raises(ConfigurationError, match="'forgetting_file' of the run measures one model; got the tasks"):
        read_experiment({**forgotten, "adapter": adapter, "task_name": None, "tasks": tasks, "mixture": mixture})


def test_other_workloads_do_not_forget_texts(text):
    with pytest.raises(ConfigurationError, match="'forgetting_file' of the run needs a model that continues texts"):
        read_experiment({"experiment_name": "a", "task_name": "world_sentiment", "forgetting_file": str(text)})


@pytest.mark.parametrize("method", ["looped", "factorized"])
def test_a_folder_of_shared_or_factorized_weights_has_no_dense_ones_to_compare_with(method, corpus_values, tmp_path):
    """Loaded again, it would be the model itself."""
    source, folder = corpus_values["model_name_or_path"], tmp_path / "made"
    model = AutoModelForCausalLM.from_pretrained(source)
    if method == "looped":
        model = loop(model, n_layer=1)
    else:
        adapters.factorize(model, {"format": "low_rank", "budget": 0.5})
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    values = {**corpus_values, "model_name_or_path": str(folder), "baselines": ["dense"]}
    with pytest.raises(ConfigurationError, match=rf"'baselines'.*no dense.*made.*{method} weights alone"):
        run_experiment(read_experiment(values))
    assert not (tmp_path / "outputs").exists()
