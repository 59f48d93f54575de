"""Changes of ranks at the steps of a schedule."""

import json

import pytest

import adapters
from adapters.adaptive_ranks.trains import adaptable_trains, parameter_count

from .settings import LORA, parameters_at_rank_one


class TestRankSchedule:
    def test_parameters_fall_linearly_to_the_budget(self, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), LORA))
        start = parameter_count(adaptable_trains(model)[0])
        schedule = adapters.RankSchedule(start=10, every=10, end=49, budget=start // 2)
        reports = {step: schedule.step(model, None, step) for step in range(60)}
        changed = {step: report for step, report in reports.items() if report is not None}
        assert list(changed) == [10, 20, 30, 40] == list(schedule.steps)
        for i, report in enumerate(changed.values(), start=1):
            planned = start - (start - start // 2) * i / 4
            assert 0.93 * planned <= report.parameters_after <= planned + 1
        assert report.parameters_after <= start // 2

    @pytest.mark.parametrize(
        ("cut", "expected"), [({}, [(3, 3), (4, 4), (5, 5)]), ({"rel_tol": 1e-4}, [(3, 3), (3, 3), (2, 2)])]
    )
    def test_ranks_do_not_grow_after_the_last_truncation(self, cut, expected, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        schedule = adapters.RankSchedule(start=1, every=1, end=3, grow=1, **cut)
        assert [schedule.step(model, None, step).rows[0].after for step in (1, 2, 3)] == expected

    def test_a_budget_that_cannot_be_reached_is_reported_at_the_first_change(self, tiny_t5, trained, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        least = parameters_at_rank_one(adaptable_trains(model)[0])
        before = snapshot(model)
        schedule = adapters.RankSchedule(start=1, every=1, end=9, budget=least - 1)
        with pytest.raises(
            adapters.ConfigurationError,
            match=f"parameters at the smallest ranks, {least} with min_rank 1; got {least - 1}",
        ):
            schedule.step(model, None, 1)
        assert snapshot(model) == before
        enough = adapters.RankSchedule(start=1, every=1, end=2, budget=least)
        assert [enough.step(model, None, step).parameters_after for step in (1, 2)][-1] == least

    def test_json_round_trip(self):
        schedule = adapters.RankSchedule(start=1, every=2, end=9, budget=100, min_rank=2, grow=1)
        assert adapters.RankSchedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ("often", "object"),
            ({"start": 1, "every": 1}, "'end'"),
            ({"start": 0, "every": 1, "end": 2, "rel_tol": 0.1}, "'start'"),
            ({"start": 1, "every": 0, "end": 2, "rel_tol": 0.1}, "'every'"),
            ({"start": 3, "every": 1, "end": 2, "rel_tol": 0.1}, "'end'"),
            ({"start": 1, "every": 1, "end": 2}, "'rel_tol'"),
            ({"start": 1, "every": 1, "end": 2, "budgte": 9}, "'budget'"),
            ({"start": 1, "every": 1, "end": 2, "budget": "many"}, "'budget'"),
            ({"start": 1, "every": 1, "end": 2, "budget": 1.5}, "'budget'"),
        ],
    )
    def test_invalid_json_is_reported(self, values, message):
        with pytest.raises(adapters.ConfigurationError, match=message):
            adapters.RankSchedule.from_dict(values)

    @pytest.mark.parametrize(
        ("key", "value"), [("start", 0.5), ("every", True), ("end", 2.5), ("budget", "9"), ("max_rank", 2.5)]
    )
    def test_invalid_arguments_are_reported(self, key, value):
        with pytest.raises(adapters.ConfigurationError, match=f"'{key}'"):
            adapters.RankSchedule(**{"start": 1, "every": 1, "end": 2, "grow": 1, key: value})
