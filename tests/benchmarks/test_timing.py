"""The order of the rounds and the statistics of the times, with scripted functions instead of a clock."""

import gc

import pytest
import torch

from benchmarks import timing
from benchmarks.timing import Timing, interleaved

CPU = torch.device("cpu")


@pytest.fixture
def scripted(monkeypatch):
    """Functions whose return value is their time."""

    def clocked(function, device):
        return function()

    monkeypatch.setattr(timing, "clocked", clocked)


def test_median_and_quartiles():
    assert Timing.of([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0, 5)
    assert Timing.of([2.0]) == (2.0, 2.0, 2.0, 1)


def test_every_function_runs_once_per_round_after_a_warm_up(scripted):
    calls = []
    functions = {name: lambda name=name: calls.append(name) or 1.0 for name in "abc"}
    times = interleaved(functions, 4, CPU)
    assert calls[:3] == ["a", "b", "c"]
    assert [sorted(calls[3 * k : 3 * k + 3]) for k in range(1, 5)] == [["a", "b", "c"]] * 4
    assert {timing.rounds for timing in times.values()} == {4}


def test_slow_contenders_are_timed_once_after_the_warm_up(scripted):
    far = iter([0.1, 3.1])
    functions = {"fast": lambda: 1.0, "near": lambda: 2.9, "far": lambda: next(far), "floor": lambda: 9.0}
    times = interleaved(functions, 3, CPU, contenders={"fast", "near", "far"})
    assert {name: timing.rounds for name, timing in times.items()} == {"fast": 3, "near": 3, "far": 1, "floor": 3}
    assert times["far"].median == 3.1


def test_a_slow_warm_up_does_not_drop_a_contender(scripted):
    cold = iter([10.0, 1.0, 1.2, 1.4, 1.6])
    times = interleaved({"warm": lambda: 1.0, "cold": lambda: next(cold)}, 3, CPU, contenders={"warm", "cold"})
    assert times["cold"] == (1.4, 1.2, 1.6, 3)


def test_an_error_restores_the_garbage_collector(scripted):
    with pytest.raises(ZeroDivisionError):
        interleaved({"bad": lambda: 1 / 0}, 1, CPU)
    assert gc.isenabled()
