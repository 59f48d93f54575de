"""The rows of a corrector: greedy strings of words of each split, which a run of text reads."""

import pytest

from seq2seq.configuration.reading import read_experiment
from seq2seq.running.runner import run_experiment
from seq2seq.swipe.rows import split_of
from seq2seq.swipe.spellings import main
from seq2seq.tasks.sources import load_files


def test_rows_have_words_of_their_split_and_what_the_model_spells(values, tmp_path, capsys):
    """With a good enough model some strings are right, and the same seed gives the same rows."""
    run_experiment(
        read_experiment({**values, "max_steps": 300, "learning_rate": 0.02, "eval_steps": 300, "save_steps": 300})
    )
    for name in ("one", "other"):
        assert main([str(tmp_path / "run"), str(tmp_path / name), "--traces", "100"]) == 0
    files = {split: tmp_path / "one" / f"{split}.tsv" for split in ("train", "validation", "test")}
    for split, rows in load_files(files).items():
        assert rows["target"]
        assert {split_of(word) for word in rows["target"]} == {split}
        assert all(rows["source"])
        assert files[split].read_text() == (tmp_path / "other" / f"{split}.tsv").read_text()
    right = int(capsys.readouterr().out.split(" rows, ")[1].split()[0])
    assert 0 < right < 100


@pytest.mark.parametrize(("options", "said"), [(["--traces", "1"], "at least 10"), ([], "finished run")])
def test_what_cannot_be_is_refused(tmp_path, capsys, options, said):
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "rows"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()
