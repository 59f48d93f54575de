"""A run of swipe typing that takes seconds: sixty words, one small block."""

import pytest

WORDS = (
    "the of and to in is it that for you was on with as be are this have not at by from but or an they his we she",
    "which all had one their what so there been if more when who will out no can would her about up its into has",
    "some two them new other could time these first than",
)


@pytest.fixture
def values(tmp_path):
    lexicon = tmp_path / "words.tsv"
    lexicon.write_text("".join(f"{word}\t{1000 - 10 * rank}\n" for rank, word in enumerate(" ".join(WORDS).split())))
    return {
        "experiment_name": "run",
        "output_root": str(tmp_path),
        "workload": "swipe",
        "lexicon": {"file": str(lexicon)},
        "model": {"rate": 10.0, "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "dropout_rate": 0.0},
        "synthetic_traces": 64,
        "evaluation_traces": 12,
        "decoding": {"beam": 4},
        "max_steps": 8,
        "per_device_train_batch_size": 8,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 4,
        "disable_tqdm": True,
        "use_cpu": True,
    }
