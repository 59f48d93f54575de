"""The default shape of a delta is one rule: that of the kind, of the PEFT tuner, and of the table of choices."""

import pytest

from adapters import TensorTrainLoRAConfig
from adapters.peft import TensorTrainConfig
from t3nsor.describe.__main__ import main

SIZES = [(768, 3072), (3072, 768), (512, 512), (96, 31)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_table_of_choices_counts_the_default_delta(size, capsys):
    ranks, cores = (2, 8), (1, 2, 3, 4)
    main([*map(str, size), "--rank", *map(str, ranks), "--d", *map(str, cores)])
    rows = capsys.readouterr().out.splitlines()[2:]
    choices = [(d, rank) for d in cores for rank in ranks]
    for row, (d, rank) in zip(rows, choices, strict=True):
        for config in (TensorTrainLoRAConfig(d=d, rank=rank), TensorTrainConfig(d=d, rank=rank).to_adapter_config()):
            linear = config.build(*size).linear
            rows_of, columns_of = ("x".join(map(str, side)) for side in linear.raw_shape)
            mode, *shape, parameters = row.split()[:6]
            assert (mode, shape[:3]) == ("cheapest", [rows_of, "x", columns_of])
            assert int(parameters.replace(",", "")) == sum(core.numel() for core in linear.cores)


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, "cheapest"),
        ({"rank": 4, "d": 2}, "cheapest"),
        ({"rank": (2, 3)}, "ascending"),
        ({"shared_cores": (0,)}, "ascending"),
        ({"disabled_cores": (0,)}, "ascending"),
        ({"core_activation": "gelu"}, "ascending"),
        ({"modes": ("in", "out")}, "ascending"),
        ({"format": "cp"}, "ascending"),
        ({"raw_shape": ((4, 4), (2, 8))}, None),
    ],
    ids=str,
)
def test_default_is_cheapest_where_that_was_measured(fields, mode):
    assert TensorTrainLoRAConfig(**fields).shape_mode == mode
    assert TensorTrainConfig(**fields).shape_mode == mode
