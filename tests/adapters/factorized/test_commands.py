"""The commands: python -m adapters.factorized and python -m adapters.factorized.export."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from adapters.factorized.__main__ import main
from adapters.factorized.export import main as export
from adapters.factorized.layers import factorized_modules
from tests.adapters.models import logits, tiny

WORDS = [f"w{k}" for k in range(48)]


@pytest.fixture
def source(tmp_path):
    """A folder with a model and a tokenizer of words."""
    tiny("llama").save_pretrained(tmp_path / "source")
    tokenizer = Tokenizer(
        models.WordLevel({"<unk>": 0, "<eos>": 1, **{word: k + 2 for k, word in enumerate(WORDS)}}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def text(tmp_path):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(WORDS), (400,), generator=generator).tolist()
    (tmp_path / "text.txt").write_text(" ".join(WORDS[k] for k in ids))
    return tmp_path / "text.txt"


def test_a_start_in_one_line_and_its_export(source, tmp_path, capsys):
    made, dense = tmp_path / "made", tmp_path / "dense"
    assert main([str(source), str(made), "--first-shape", "12", "6", "--factors", "3"]) == 0
    printed = capsys.readouterr().out
    assert "model.layers.1.mlp.down_proj" in printed
    assert "6x12 4x4 rank 3" in printed
    model = AutoModelForCausalLM.from_pretrained(made)
    assert len(factorized_modules(model)) == 6
    assert AutoTokenizer.from_pretrained(made)("w1 w2")["input_ids"] == [3, 4]
    assert export([str(made), str(dense)]) == 0
    plain = AutoModelForCausalLM.from_pretrained(dense)
    assert not factorized_modules(plain)
    before = logits(model, "llama")
    torch.testing.assert_close(logits(plain, "llama"), before, rtol=0, atol=1e-5 * before.abs().max().item())


def test_a_calibrated_one_from_a_file(source, text, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps([{"format": "low_rank", "rank": 4, "whiten": "full"}]))
    options = ["--config", str(tmp_path / "config.json"), "--calibration", str(text), "--tokens", "300"]
    assert main([str(source), str(tmp_path / "made"), *options, "--window", "64", "--held-out-tokens", "50"]) == 0
    assert "Tokens: 300 for the calibration, 50 held out." in capsys.readouterr().out
    assert main([str(source), str(tmp_path / "no"), *options, "--held-out", str(text), "--report-only"]) == 0
    assert "400 held out" in capsys.readouterr().out
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("targets", "count"), [("feed_forward", 6), ("embedding", 1), (".*gate_proj", 2), ("up_proj", 2)]
)
def test_targets_are_a_role_a_pattern_or_names(targets, count, source, tmp_path):
    options = ["--target-modules", targets, "--format", "low_rank", "--rank", "2"]
    assert main([str(source), str(tmp_path / "made"), *options]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert len({id(module.cores[0]) for module in factorized_modules(model).values()}) == count


def test_windows_are_no_longer_than_the_positions(text, source, tmp_path):
    sizes = {"vocab_size": 50, "n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(source)
    options = ["--format", "low_rank", "--rank", "2", "--whiten", "full", "--calibration", str(text), "--tokens", "300"]
    assert main([str(source), str(tmp_path / "made"), *options, "--held-out-tokens", "50"]) == 0


@pytest.mark.parametrize("option", ["--tokens", "--held-out-tokens", "--window"])
@pytest.mark.parametrize("value", ["1", "-7", "many"])
def test_counts_are_at_least_two(option, value, source, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(source), str(tmp_path / "made"), option, value])
    assert f"{option}: must be an integer of at least 2; got '{value}'" in capsys.readouterr().err


REFUSALS = {
    "no model": (["{tmp}/none", "{tmp}/made", "--first-shape", "4", "3"], "none"),
    "a full destination": (["{source}", "{source}", "--first-shape", "4", "3"], "new or empty"),
    "a shape that does not divide": (["{source}", "{tmp}/made", "--first-shape", "5", "3"], "'first_shape'"),
    "no shape": (["{source}", "{tmp}/made"], "'first_shape'"),
    "no configuration": (["{source}", "{tmp}/made", "--config", "{tmp}/none.json"], "none.json"),
    "two configurations": (["{source}", "{tmp}/made", "--config", "{tmp}/c.json", "--rank", "3"], "excludes"),
    "no text": (["{source}", "{tmp}/made", "--first-shape", "4", "3", "--calibration", "{tmp}/none.txt"], "none.txt"),
    "a short text": (["{source}", "{tmp}/made", "--first-shape", "4", "3", "--calibration", "{text}"], "first 65536"),
    "held out alone": (
        ["{source}", "{tmp}/made", "--first-shape", "4", "3", "--held-out", "{text}"],
        "needs a calibration",
    ),
    "whiten without a text": (["{source}", "{tmp}/made", "--first-shape", "4", "3", "--whiten", "full"], "calibration"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused_and_nothing_is_written(arguments, said, source, text, tmp_path, capsys):
    given = [argument.format(tmp=tmp_path, source=source, text=text) for argument in arguments]
    files = sorted(source.iterdir())
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("Refused: ")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "made").exists()
    assert sorted(source.iterdir()) == files


def test_an_export_of_a_plain_model_is_refused(source, tmp_path, capsys):
    assert export([str(source), str(tmp_path / "made")]) == 2
    assert "adapters.factorize" in capsys.readouterr().err
    assert export([str(tmp_path / "none"), str(tmp_path / "made")]) == 2
    assert not (tmp_path / "made").exists()
