"""describe against closed forms, and the table of choices against the layers in it."""

import json
import math
import runpy
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor as t3
from t3nsor.describe.__main__ import main


def layer(**arguments):
    return t3.TTLinear(768, 3072, device="meta", **arguments)


def test_two_cores_have_the_closed_form():
    """(m1 n1 + m2 n2) r parameters; 2 r m1 n2 (n1 + m2) flops per token core by core, 2 r n1 m2 (n2 + m1) reversed."""
    described = t3.describe(layer(d=2, tt_rank=4), tokens=10)
    (m1, m2), (n1, n2) = described.raw_shape
    assert (m1, m2, n1, n2) == (48, 64, 24, 32)
    assert described.core_shapes == ((1, 48, 24, 4), (4, 64, 32, 1))
    assert described.parameters == 4 * (m1 * n1 + m2 * n2)
    assert described.compression == 768 * 3072 / (4 * (m1 * n1 + m2 * n2))
    costs = {cost.strategy: cost for cost in described.costs}
    assert costs["sequential"].flops == 10 * 2 * 4 * (m1 * n1 * n2 + m1 * n2 * m2)
    assert costs["sequential_reversed"].flops == costs["halves@1"].flops == 10 * 2 * 4 * (n1 * n2 * m2 + n1 * m2 * m1)
    assert costs["materialised"].flops == 2 * 768 * 3072 * 4 + 10 * 2 * 768 * 3072
    assert described.dense.strategy == "dense"
    assert described.dense.flops == 10 * 2 * 768 * 3072
    assert described.dense.bytes == 4 * (10 * 768 + 768 * 3072 + 10 * 3072)


@pytest.mark.parametrize("tokens", [1, 1024, 10**6])
def test_the_chosen_strategy_is_that_of_explain(tokens):
    described = t3.describe(layer(), tokens)
    assert described.chosen == str(t3.explain((tokens, 768), layer().network()).plan.product)
    assert described.chosen in {cost.strategy for cost in described.costs}


@settings(max_examples=25)
@given(sizes=st.tuples(st.integers(1, 96), st.integers(1, 96)), d=st.integers(1, 4), rank=st.integers(1, 9))
def test_parameters_exclude_the_bias(sizes, d, rank):
    built = t3.TTLinear(*sizes, d=d, tt_rank=rank)
    described = t3.describe(built)
    assert described.parameters == sum(parameter.numel() for parameter in built.cores)
    assert described.shape == tuple(built.full().shape)
    assert described.costs == t3.explain((1024, sizes[0]), built.network()).product


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("format", t3.FORMATS)
def test_parameters_of_every_format_match_the_layer(format, d):
    built = t3.TTLinear(24, 36, bias=False, d=d, tt_rank=2, format=format)
    assert t3.describe(built).parameters == sum(parameter.numel() for parameter in built.parameters())


def test_a_network_and_its_layer_have_one_description():
    built = t3.TTLinear(12, 8, d=2, tt_rank=3)
    assert t3.describe(built) == t3.describe(built.network())


def test_a_ring_counts_its_closing_rank():
    ring = t3.random_matrix(((2, 4), (4, 3)), 3, format="tensor_ring")
    assert t3.describe(ring).parameters == 9 * (2 * 4 + 4 * 3)
    assert t3.describe(ring).ranks == (3, 3, 3)


@pytest.mark.parametrize(
    ("plan", "chosen"),
    [("materialised", "materialised"), ("halves@2", "halves@2"), ("sequential, fused, halves@1", "sequential")],
)
def test_a_layers_explicit_plan_is_used(plan, chosen):
    described = t3.describe(layer(plan=plan))
    assert described.chosen == chosen
    assert [line.split()[0] for line in str(described).splitlines() if line.endswith("<- chosen")] == [chosen]


@pytest.mark.parametrize("plan", ["auto", "timed"])
def test_auto_and_timed_plans_are_described_by_estimates(plan):
    assert t3.describe(layer(plan=plan)) == t3.describe(layer())


def test_activations_between_the_cores_leave_one_strategy():
    described = t3.describe(layer(core_activation="relu"))
    assert [cost.strategy for cost in described.costs] == ["sequential"]
    assert described.chosen == "sequential"


def test_bytes_depend_on_the_dtype_of_the_cores():
    single, double = (t3.describe(layer(dtype=dtype)) for dtype in (torch.float32, torch.float64))
    doubled = {cost.strategy: cost.bytes for cost in double.costs}
    assert {cost.strategy: 2 * cost.bytes for cost in single.costs} == doubled
    assert 2 * single.dense.bytes == double.dense.bytes


def test_it_prints_a_table_and_converts_to_json():
    described = t3.describe(layer(d=3, tt_rank=8), tokens=1)
    text = str(described)
    for part in ("768 -> 3072", "12x16x16", "8x16x8x8", "10,496 of 2,359,296, compression 224.8", "3,096,576"):
        assert part in text
    assert next(line for line in text.splitlines() if line.endswith("<- chosen")).split()[0] == described.chosen
    plain = json.loads(json.dumps(described.to_dict()))
    assert plain["parameters"] == 10496
    assert plain["per_token"]["sequential"]["flops"] == 3096576
    assert math.prod(plain["raw_shape"][0]) == plain["shape"][0]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((torch.nn.Linear(2, 2), 1), TypeError, "describe needs a TT layer or a network; got a Linear"),
        ((t3.TTLinear(4, 4), 0), ValueError, "tokens must be at least 1; got 0"),
        ((t3.TTLinear(4, 4), 1.5), TypeError, "tokens must be an integer"),
    ],
)
def test_invalid_input_raises(given, error, message):
    with pytest.raises(error, match=message):
        t3.describe(*given)


class TestCommand:
    def test_a_row_for_each_choice_describes_its_layer(self, capsys):
        assert main(["768", "3072", "--d", "2", "3", "--rank", "4", "8", "--shape-mode", "ascending", "mixed"]) == 0
        header, dense, *rows = capsys.readouterr().out.splitlines()
        assert header.split()[:2] == ["shape", "mode"]
        assert "2,359,296" in dense
        assert len(rows) == 8
        choices = [(mode, d, rank) for mode in ("ascending", "mixed") for d in (2, 3) for rank in (4, 8)]
        for row, (mode, d, rank) in zip(rows, choices, strict=True):
            described = t3.describe(layer(d=d, tt_rank=rank, shape_mode=mode))
            cells = row.split()
            assert cells[0] == mode
            assert cells[4] == ",".join(map(str, described.ranks))
            assert cells[5:7] == [f"{described.parameters:,}", f"{described.compression:,.1f}"]
            assert cells[-1] == described.chosen

    def test_columns_are_aligned(self, capsys):
        main(["24", "768", "--rank", "2", "16"])
        header, *rows = capsys.readouterr().out.splitlines()
        end = header.index("parameters") + len("parameters")
        assert {row[end - 1].isdigit() and row[end] == " " for row in rows} == {True}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["768", "0"], "out_features must be at least 1; got 0"),
            (["768", "24", "--rank", "0"], "rank must be at least 1; got 0"),
            (["768", "24", "--shape-mode", "round"], "invalid choice: 'round'"),
            (["768", "24", "--tokens", "-1"], "tokens must be at least 1"),
        ],
    )
    def test_invalid_input_is_an_error_message_and_status_2(self, arguments, message, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err

    def test_the_module_runs_without_a_warning_and_leaves_the_function_in_place(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["t3nsor.describe", "8", "8", "--d", "2", "--rank", "2"])
        monkeypatch.delitem(sys.modules, "t3nsor.describe.__main__")
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("t3nsor.describe", run_name="__main__")
        assert stopped.value.code == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
        assert callable(t3.describe)
