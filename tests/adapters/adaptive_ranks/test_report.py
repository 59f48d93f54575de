"""The report of a change of ranks."""

import json

import adapters

from .settings import LORA


def test_the_report_prints_as_a_table_and_converts_to_json(tiny_t5, trained):
    model = trained(adapters.attach(tiny_t5(), LORA))
    report = adapters.adapt_ranks(model, max_rank=2)
    assert "[5, 5]" in str(report)
    assert f"{report.parameters_before:,} parameters before" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["parameters_after"] == report.parameters_after
