"""The coefficients of the cost model: defaults, measurements, and the file that stores them."""

import json
import sys
from dataclasses import asdict, replace

import pytest
import torch

import t3nsor as t3
from t3nsor.calibrate import calibrate, main
from t3nsor.contraction.device import DEFAULTS, cache_file, coefficients, device_name, save
from t3nsor.contraction.work import Device

SLOW = Device(flops=1e3, half=1.0, bandwidth=1e3, copying=1e3, paging=1e3, launch=1.0)


@pytest.fixture(autouse=True)
def _own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("T3NSOR_CACHE", str(tmp_path / "cache"))


def test_without_a_file_the_defaults_are_used():
    assert not cache_file().exists()
    assert coefficients("cpu", torch.float32) == DEFAULTS["cpu", torch.float32]


@pytest.mark.parametrize(
    ("device", "dtype", "known"),
    [
        ("cpu", torch.float64, ("cpu", torch.float32)),
        ("cpu", torch.float16, ("cpu", torch.bfloat16)),
        ("meta", torch.float32, ("cpu", torch.float32)),
        ("xpu", torch.float16, ("cuda", torch.bfloat16)),
    ],
)
def test_unknown_devices_and_dtypes_use_the_closest_defaults(device, dtype, known):
    assert coefficients(device, dtype) == DEFAULTS[known]


def test_measured_coefficients_are_saved_and_used():
    assert coefficients("cpu", torch.float32) != SLOW
    assert save({("cpu", torch.float32): SLOW}) == cache_file()
    assert coefficients("cpu", torch.float32) == SLOW
    assert coefficients("cpu", torch.bfloat16) == DEFAULTS["cpu", torch.bfloat16]
    assert [path.name for path in cache_file().parent.iterdir()] == ["devices.json"]


def test_rows_without_a_device_name_are_dropped():
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(json.dumps([{"device": "cpu", "dtype": "float32", **asdict(SLOW)}]))
    faster = replace(SLOW, flops=1e6)
    save({("cpu", torch.float32): faster})
    assert coefficients("cpu", torch.float32) == faster


def test_coefficients_depend_on_the_number_of_threads(monkeypatch):
    threads, faster = torch.get_num_threads(), replace(SLOW, flops=1e6)
    save({("cpu", torch.float32): SLOW})
    with monkeypatch.context() as other:
        other.setattr(torch, "get_num_threads", lambda: threads + 1)
        assert coefficients("cpu", torch.float32) == DEFAULTS["cpu", torch.float32]
        for measured in (replace(SLOW, flops=2e6), faster):
            save({("cpu", torch.float32): measured})
        assert coefficients("cpu", torch.float32) == faster
    assert coefficients("cpu", torch.float32) == SLOW
    assert len(json.loads(cache_file().read_text())) == 2


@pytest.mark.parametrize(
    "content",
    [
        *("", "[", "{}", "3", "[3]", '[{"device": "cpu"}]'),
        '[{"device": "cpu", "name": NAME}]',
        '[{"device": "cpu", "name": NAME, "dtype": "floaty"}]',
        '[{"device": "cpu", "name": NAME, "dtype": "float32", "speed": 1}]',
    ],
)
def test_a_malformed_file_is_ignored(content):
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content.replace("NAME", json.dumps(device_name("cpu"))))
    assert coefficients("cpu", torch.float32) == DEFAULTS["cpu", torch.float32]


def test_the_plan_depends_on_the_coefficients(tmp_path, monkeypatch):
    """If only kernel launches have a cost, the strategy with the fewest kernels is chosen."""
    tt = t3.random_matrix(((4, 6), (6, 4)), 2)
    monkeypatch.setenv("T3NSOR_CACHE", str(tmp_path / "launches"))
    save({("cpu", torch.float32): Device(1e30, 0.0, 1e30, 1e30, 1e30, 1.0)})
    explained = t3.explain((32, 24), tt)
    assert str(explained.plan.product) == min(explained.product, key=lambda cost: cost.launches).strategy
    monkeypatch.setenv("T3NSOR_CACHE", str(tmp_path / "operations"))
    save({("cpu", torch.float32): Device(1.0, 0.0, 1e30, 1e30, 1e30, 0.0)})
    explained = t3.explain((32, 24), tt)
    assert str(explained.plan.product) == min(explained.product, key=lambda cost: cost.flops).strategy
    assert min(cost.seconds for cost in t3.explain((0, 24), tt).product) == 0.0


def test_calibration_gives_plausible_coefficients(monkeypatch):
    monkeypatch.setattr(sys.modules[calibrate.__module__], "ROUNDS", 1)
    measured = calibrate("cpu", torch.float32)
    assert 1e8 < measured.flops < 1e16
    assert min(measured.bandwidth, measured.copying, measured.paging) > 1e6
    assert 0 < measured.launch < 1
    assert measured.half >= 0


def test_show_prints_the_coefficients_in_use_and_measures_nothing(capsys):
    save({("cpu", torch.float32): SLOW})
    assert main(["--show"]) == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["device", "dtype"]
    assert first.split()[:2] == ["cpu", "torch.float32"]
    assert first.split()[-1] == f"{SLOW.launch * 1e6:.1f}"


def test_the_command_saves_its_measurements(monkeypatch, capsys):
    monkeypatch.setattr(sys.modules[calibrate.__module__], "calibrate", lambda *key: SLOW)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 0
    assert str(cache_file()) in capsys.readouterr().out
    assert {row["flops"] for row in json.loads(cache_file().read_text())} == {SLOW.flops}
