"""Colours and markers of methods."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from adapters import AdapterConfig
from seq2seq.report.settings import flatten
from seq2seq.report.styles import FAMILIES, method_style, method_styles
from tests.seq2seq.report.situations import KINDS, adapter


def settings(**fields):
    return flatten({"adapter": adapter(**fields)})


def test_every_kind_has_a_colour_of_its_own():
    known = {name for _, colours in FAMILIES.values() for name in colours}
    assert {kind for kind in AdapterConfig.kinds if not kind.startswith("peft:")} <= known
    colours = [colour for _, colours in FAMILIES.values() for colour in colours.values()]
    assert len({*colours}) == len(colours)


def test_a_style_does_not_depend_on_the_other_methods():
    everything = [(str(n), settings(**fields)) for n, fields in enumerate(KINDS)]
    together = method_styles(everything)
    for label, one in reversed(everything):
        alone = method_styles([(label, one)])[label]
        assert {**together[label], "linestyle": None} == {**alone, "linestyle": None}


def test_methods_of_one_plot_are_distinct():
    styles = method_styles([(str(n), settings(**fields)) for n, fields in enumerate(KINDS)])
    looks = [(style["color"], style["marker"], str(style["linestyle"])) for style in styles.values()]
    assert len({*looks}) == len(KINDS)


def test_families_have_markers():
    kinds = {"tt_lora": "o", "bottleneck": "s", "bitfit": "^", "prompt": "D", "none": "*", "peft:LORA": "X"}
    assert {kind: method_style(settings(kind=kind))["marker"] for kind in kinds} == kinds
    assert method_style({"adapter.kind": "a kind of tomorrow"})["marker"] == "P"


def test_a_higher_rank_is_darker():
    ranks = (1, 2, 4, 8, 16, [16, 64])
    light = [np.mean(to_rgb(method_style(settings(kind="tt_lora", rank=rank))["color"])) for rank in ranks]
    assert all(first > second for first, second in itertools.pairwise(light))


def test_several_kinds_have_an_open_marker():
    both = flatten({"adapter": [*adapter(kind="tt_lora"), *adapter(kind="layer_norm")]})
    assert method_style(both)["markerfacecolor"] == "white"
    assert method_style(both)["color"] == method_style(settings(kind="tt_lora"))["color"]


@pytest.mark.parametrize("name", ["LORA", "A_TYPE_OF_TOMORROW"])
def test_a_type_of_peft_has_a_colour_of_its_family(name):
    assert method_style({"adapter.kind": f"peft:{name}"})["color"] in FAMILIES["PEFT"][1].values()
