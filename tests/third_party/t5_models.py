"""What the tests of T5 share: every kind of adapter on it, the ways to a model that has them, and a batch."""

import torch

import adapters
from tests.third_party import tiny
from third_party.models.t5 import T5Config, T5ForConditionalGeneration

ALL_SUBLAYERS = ["self_attention", "cross_attention", "feed_forward"]

NOTHING_CHANGES_AT_FIRST = {
    "tt_lora": {"kind": "tt_lora", "rank": 2},
    "tt_lora everywhere": {
        "kind": "tt_lora",
        "target_modules": ["q", "k", "v", "o", "wo"],
        "rank": [2, 3],
        "delta_bias": "dense",
    },
    "tt_lora shared": {"kind": "tt_lora", "rank": 2, "shared_cores": [0, 2], "frozen_cores": [0]},
    "tt_lora half": {"kind": "tt_lora", "d": 2, "disabled_cores": [0], "layers": [1], "delta_bias": "tt"},
    "tt_lora non-linear": {"kind": "tt_lora", "rank": 2, "core_activation": "gelu"},
    "tt_adapter": {"kind": "tt_adapter", "reduction_factor": 2, "rank": 2, "sublayers": ALL_SUBLAYERS},
    "tt_adapter shared": {"kind": "tt_adapter", "expansion_factor": 2, "rank": 2, "shared_cores": [1]},
    "tt_single": {"kind": "tt_single", "rank": 3, "sublayers": ALL_SUBLAYERS, "delta_bias": "dense"},
    "bottleneck": tiny.BOTTLENECK,
    "layer_norm": {"kind": "layer_norm"},
    "bitfit": {"kind": "bitfit"},
    "intrinsic_said": {"kind": "intrinsic_said", "dim": 100},
    "lm_head": {"kind": "lm_head"},
    "none": {"kind": "none"},
    "composed": [{"kind": "tt_lora"}, {"kind": "tt_lora", "rank": 1}, tiny.BOTTLENECK, {"kind": "layer_norm"}],
}
NORMS_CHANGE = {
    "scale_norm": {"kind": "scale_norm"},
    "tt_layer_norm": {"kind": "tt_layer_norm", "rank": 1},
    "tt_layer_norm shared": {"kind": "tt_layer_norm", "init": "ones", "shared_cores": [0], "d": 2},
}
EVERY_KIND = {**NOTHING_CHANGES_AT_FIRST, **NORMS_CHANGE}
NOT_LINEAR = ("tt_lora non-linear", "tt_adapter", "tt_adapter shared", "bottleneck", "composed")
MERGEABLE = [name for name in EVERY_KIND if name not in NOT_LINEAR]

torch.manual_seed(0)
BATCH = {"input_ids": torch.randint(2, 60, (3, 7)), "labels": torch.randint(2, 60, (3, 5))}


@torch.no_grad()
def logits(model):
    return model.eval()(**BATCH).logits


def by_hand(base, adapter):
    """The third way to a model with adapters: a configuration that has them, and a checkpoint that has not."""
    config = T5Config.from_pretrained(base)
    config.adapters = adapter
    torch.manual_seed(1)
    return T5ForConditionalGeneration.from_pretrained(base, config=config)


LOADERS = {"argument": tiny.adapted_model, "configuration": by_hand}


def two_tasks(base):
    """One adapter for everybody, and one for each of two tasks."""
    model = tiny.adapted_model(base, {"kind": "layer_norm"})
    for task, rank in (("rte", 2), ("cola", 2), (None, 1)):
        adapters.attach(model, {"kind": "tt_lora", "rank": rank}, task=task)
    tiny.randomize(model)
    return model
