"""Parameter counts on the meta device: published counts of T5-base, and closed forms in three architectures.

D = d_model, F = d_ff, L blocks per stack, k = D // 32;  a site is a place after self-attention or feed-forward
"""

import copy
from dataclasses import dataclass, field
from functools import cache
from math import prod

import pytest
import torch
import transformers

import adapters

VOCABULARY = 32_100  # of spiece.model; the checkpoint's embedding is padded to 32,128 rows


@dataclass(frozen=True)
class Size:
    """An architecture, with the results of `factorize(size, 3)`."""

    D: int
    F: int
    L: int
    heads: int
    gated: bool
    factors: dict = field(hash=False)

    @property
    def k(self):
        return self.D // 32

    @property
    def sites(self):
        return 4 * self.L

    @property
    def norms(self):
        return (5 * self.L + 2) * self.D

    @property
    def wis(self):
        return 2 if self.gated else 1

    @property
    def base(self):
        inner = 64 * self.heads
        feed_forward = (self.wis + 1) * self.D * self.F
        blocks = self.L * ((4 + 8) * self.D * inner + 2 * feed_forward)
        return (2 if self.gated else 1) * VOCABULARY * self.D + blocks + 2 * 32 * self.heads + self.norms


SIZES = {
    "t5-base": Size(768, 3072, 12, 12, False, {768: (8, 8, 12), 3072: (12, 16, 16), 24: (2, 3, 4)}),
    "t5-small": Size(512, 2048, 6, 8, False, {512: (8, 8, 8), 2048: (8, 16, 16), 16: (2, 2, 4)}),
    "v1.1-base": Size(768, 2048, 12, 12, True, {768: (8, 8, 12), 2048: (8, 16, 16), 24: (2, 3, 4)}),
}


@cache
def _model_of(size):
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=size.D,
        d_ff=size.F,
        d_kv=64,
        num_heads=size.heads,
        num_layers=size.L,
        num_decoder_layers=size.L,
        feed_forward_proj="gated-gelu" if size.gated else "relu",
    )
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
        if size.gated:  # T5Config always ties; v1.1 has an untied head
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    return model


def model_of(size):
    return copy.deepcopy(_model_of(size))


def count(size, description):
    """The trainable parameter count, and the whole summary."""
    summary = adapters.summary(adapters.attach(model_of(size), description))
    return summary.total.trainable, summary


PUBLISHED = {
    "adapter": ({"kind": "bottleneck"}, 1_855_104, ".832"),
    "pfeiffer": ({"kind": "bottleneck", "sublayers": ["feed_forward"]}, 951_360, ".427"),
    "adapterdrop": ({"kind": "bottleneck", "layers": [5, 6, 7, 8, 9, 10, 11]}, 1_101_984, ".494"),
    "low_rank": ({"kind": "low_rank"}, 161_664, ".073"),
    "phm": ({"kind": "phm", "n": 12}, 398_976, ".179"),
    "compacter": ({"kind": "compacter"}, 161_728, ".073"),
    "compacter++": ({"kind": "compacter", "sublayers": ["feed_forward"]}, 104_704, ".047"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_of_t5_base_include_its_layer_norms(name):
    description, trainable, percent = PUBLISHED[name]
    counted, summary = count(SIZES["t5-base"], [description, {"kind": "layer_norm"}])
    assert counted == trainable
    assert summary.base.parameters == 222_882_048
    assert f"{100 * summary.share:.3f}".removeprefix("0") == percent


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_parameter_counts_of_the_base_models(size):
    counted, summary = count(size, {"kind": "none"})
    assert counted == summary.base.parameters == size.base
    assert count(size, {"kind": "layer_norm"})[0] == size.norms


def train(rows, columns, rank):
    """Parameters of a TT matrix, an int rank clipped at each bond to what its two sides can use."""
    sizes = [m * n for m, n in zip(rows, columns, strict=True)]
    bonds = [min(rank, prod(sizes[:k]), prod(sizes[k:])) for k in range(len(sizes) + 1)]
    return sum(left * size * right for left, size, right in zip(bonds[:-1], sizes, bonds[1:], strict=True))


def biases(s):
    return s.k + s.D


def projections(s, count):
    """Down and up have ``count`` parameters each, without the biases."""
    return s.sites * (2 * count + biases(s))


def hypercomplex(s, n):
    return n**3 + s.k * s.D // n


def factors(s, n, rank):
    """s_i and t_i of one projection, i = 1..n."""
    return n * rank * (s.k // n + s.D // n)


CLOSED_FORMS = [
    ({"kind": "bottleneck"}, lambda s: projections(s, s.k * s.D)),
    ({"kind": "bottleneck", "stacks": ["encoder"], "layers": [0, 3]}, lambda s: 4 * (2 * s.k * s.D + biases(s))),
    ({"kind": "bottleneck", "sublayers": ["cross_attention"]}, lambda s: s.L * (2 * s.k * s.D + biases(s))),
    ({"kind": "low_rank", "rank": 1}, lambda s: projections(s, s.k + s.D)),
    ({"kind": "low_rank", "rank": 5}, lambda s: projections(s, 5 * (s.k + s.D))),
    ({"kind": "low_rank", "rank": 1000}, lambda s: projections(s, s.k * (s.k + s.D))),
    ({"kind": "phm", "n": 1}, lambda s: projections(s, 1 + s.k * s.D)),
    ({"kind": "phm", "n": 4}, lambda s: projections(s, hypercomplex(s, 4))),
    ({"kind": "phm", "n": 8}, lambda s: projections(s, hypercomplex(s, 8))),
    ({"kind": "compacter", "n": 4}, lambda s: 4**3 + projections(s, factors(s, 4, 1))),
    ({"kind": "compacter", "n": 8}, lambda s: 8**3 + projections(s, factors(s, 8, 1))),
    ({"kind": "compacter", "n": 4, "rank": 3}, lambda s: 4**3 + projections(s, factors(s, 4, 3))),
    ({"kind": "compacter", "n": 8, "rank": 99}, lambda s: 8**3 + projections(s, factors(s, 8, s.k // 8))),
    ({"kind": "compacter", "shared_rules": False}, lambda s: projections(s, 4**3 + factors(s, 4, 1))),
    ({"kind": "compacter", "factorized_weights": False}, lambda s: 4**3 + projections(s, s.k * s.D // 4)),
    ({"kind": "compacter", "factorized_rules": True}, lambda s: 2 * 4 * 4 + projections(s, factors(s, 4, 1))),
    (
        {"kind": "compacter", "factorized_rules": True, "rule_rank": 2, "shared_rules": False},
        lambda s: projections(s, 2 * 4 * 4 * 2 + factors(s, 4, 1)),
    ),
    ({"kind": "compacter", "learnable_rules": False}, lambda s: projections(s, factors(s, 4, 1))),
    ({"kind": "compacter", "shared_weights": True}, lambda s: 4**3 + 2 * factors(s, 4, 1) + projections(s, 0)),
    (
        {"kind": "tt_lora", "rank": 4, "shape_mode": "ascending"},
        lambda s: 2 * s.L * (s.wis + 1) * train(s.factors[s.F], s.factors[s.D], 4),
    ),
    (
        {"kind": "tt_lora", "rank": 8, "delta_bias": "dense", "target_modules": ["wo"], "shape_mode": "ascending"},
        lambda s: 2 * s.L * (train(s.factors[s.D], s.factors[s.F], 8) + s.D),
    ),
    (
        {"kind": "tt_lora", "d": 2, "rank": 2, "raw_shape": [[8, 64], [64, 8]], "target_modules": ["q", "v"]},
        lambda s: 6 * s.L * train((8, 64), (64, 8), 2),
    ),
    ({"kind": "tt_single", "rank": 2}, lambda s: s.sites * train(s.factors[s.D], s.factors[s.D], 2)),
    ({"kind": "tt_adapter", "rank": 2}, lambda s: 2 * s.sites * train(s.factors[s.k], s.factors[s.D], 2)),
    (
        {"kind": "tt_adapter", "rank": 8, "delta_bias": "dense"},
        lambda s: projections(s, train(s.factors[s.k], s.factors[s.D], 8)),
    ),
    (
        {"kind": "tt_layer_norm", "rank": 4},
        lambda s: (5 * s.L + 2) * train(s.factors[s.D], (1, 1, 1), 4),
    ),
    ({"kind": "scale_norm"}, lambda s: 5 * s.L + 2),
]
FEED_FORWARD = [
    (d, form) for d, form in CLOSED_FORMS if d["kind"] == "tt_lora" and d.get("target_modules") != ["q", "v"]
]
"""Those that depend on the feed-forward sublayer, in which the architectures differ."""
TABLE = [
    (size, description, form(SIZES[size]))
    for size, forms in (("t5-small", CLOSED_FORMS), ("v1.1-base", FEED_FORWARD))
    for description, form in forms
]


@pytest.mark.parametrize(("size", "description", "parameters"), TABLE, ids=str)
def test_trainable_parameters_equal_their_closed_form(size, description, parameters):
    assert count(SIZES[size], description)[0] == parameters


@pytest.mark.parametrize(("rank", "parameters"), [(2, 224), (4, 640), (8, 2048)])
def test_the_closed_form_of_a_train_768_to_24_is_the_published_count(rank, parameters):
    assert train((2, 3, 4), (8, 8, 12), rank) == parameters


@pytest.mark.parametrize("kind", ["compacter", "tt_adapter"])
def test_bottlenecks_compose_with_the_layer_norms(kind):
    size = SIZES["t5-small"]
    alone = count(size, {"kind": kind})[0]
    together, summary = count(size, [{"kind": kind}, {"kind": "layer_norm"}])
    assert together == alone + size.norms
    assert sum(group.trainable for name, group in summary.groups.items() if name.startswith(kind)) == alone
    assert summary.groups["layer norms"].trainable == size.norms
