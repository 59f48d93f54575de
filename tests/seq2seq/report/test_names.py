"""What methods and their settings are called."""

import pytest

from seq2seq.report.names import describe_cores, describe_setting, method_labels
from tests.seq2seq.report.situations import adapter


@pytest.mark.parametrize(
    ("cores", "d", "phrase"),
    [
        ([1], 3, "shared middle core"),
        ([0], 3, "shared first core"),
        ([-1], 3, "shared last core"),
        (2, 3, "shared last core"),
        ([1], 4, "shared core 2"),
        ([0, 2], 3, "shared cores 1 and 3"),
        ([0, 1, 2], 4, "shared cores 1, 2 and 3"),
        ([1], None, "shared core 2"),
    ],
)
def test_cores_are_named_by_their_places(cores, d, phrase):
    assert describe_cores("shared", cores, d) == phrase


@pytest.mark.parametrize(
    ("key", "value", "phrase"),
    [
        ("learning_rate", 0.01, "learning rate 0.01"),
        ("max_steps", 200, "200 steps"),
        ("max_steps", 1000000, "1000000 steps"),
        ("warmup_steps", 20.0, "warmup steps 20"),
        ("weight_decay", 0.123456789, "weight decay 0.123456789"),
        ("adapter.format", "tensor_ring", "tensor ring"),
        ("adapter.trainable", False, "frozen"),
        ("bf16", False, "not bf16"),
        ("bf16", True, "bf16"),
        ("adapter.layers", [0, 1], "layers 0-1"),
        ("adapter.shared_cores", [], ""),
        ("train_file", "train_augmented.tsv", "trained on augmented"),
        ("train_file", "train.tsv", ""),
    ],
)
def test_a_setting_is_a_phrase(key, value, phrase):
    assert describe_setting(key, {key: value}, [{key: value}, {key: "other"}]) == phrase


def test_a_path_is_named_by_what_differs():
    paths = ["/home/user/runs/a/adapter", "/home/user/runs/b/adapter"]
    rivals = [{"adapter_path": path} for path in paths]
    phrases = [describe_setting("adapter_path", one, rivals) for one in rivals]
    assert phrases == ["adapter path a/adapter", "adapter path b/adapter"]


def flat(**fields):
    return {f"adapter.{key}": value for key, value in adapter(**fields)[0].items()}


def test_what_follows_from_another_setting_is_not_named():
    """A shared core changes the default of shape_mode, too."""
    settings = [flat(kind="tt_lora", rank=4), flat(kind="tt_lora", rank=4, shared_cores=[1])]
    assert settings[0]["adapter.shape_mode"] != settings[1]["adapter.shape_mode"]
    assert method_labels(settings) == ["tt_lora r4", "tt_lora r4, shared middle core"]


def test_a_chosen_setting_is_named():
    settings = [
        flat(kind="tt_lora"),
        flat(kind="tt_lora", scaling=16.0),
        flat(kind="tt_lora", dropout=0.1),
    ]
    assert method_labels(settings) == ["tt_lora r8", "tt_lora r8, scaling 16", "tt_lora r8, dropout 0.1"]


def test_the_rank_of_peft_is_a_rank():
    assert method_labels([flat(kind="peft:LORA", r=2), flat(kind="peft:LORA", r=4)]) == ["peft:LORA r2", "peft:LORA r4"]
