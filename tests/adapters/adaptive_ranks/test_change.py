"""Changes of ranks and gauge: errors and parameters, the configuration afterwards, and invalid arguments."""

import json
import math

import pytest
import torch

import adapters
from adapters.adaptive_ranks.trains import adaptable_trains, parameter_count
from t3nsor.module import TTModule

from .settings import ADAPTABLE, FIXED_RANKS, LORA, adamw, deltas, layers_of, parameters_at_rank_one, steps


class TestAdaptRanks:
    def test_the_tolerance_and_the_reported_error_hold_for_each_train(self, adaptable, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        before = deltas(model)
        report = adapters.adapt_ranks(model, rel_tol=0.3)
        assert report.has_changed
        after = iter(zip(before, deltas(model), strict=True))
        for group, row in zip(adaptable_trains(model)[0], report.rows, strict=True):
            pairs = [next(after) for _ in group.layers]
            error = math.sqrt(sum(float((old - new).norm()) ** 2 for old, new in pairs))
            norm = math.sqrt(sum(float(old.norm()) ** 2 for old, _ in pairs))
            assert row.error == pytest.approx(abs(group.scaling) * error, rel=1e-4, abs=1e-6)
            assert row.norm == pytest.approx(abs(group.scaling) * norm, rel=1e-4)
            assert all(float((old - new).norm()) <= 0.3 * float(old.norm()) * (1 + 1e-5) for old, new in pairs)
            assert row.after == group.ranks
        assert report.parameters_after == sum(p.numel() for layer in layers_of(model) for p in layer.cores)
        assert report.parameters_after < report.parameters_before

    def test_parameters_stay_trainable_and_their_counts_are_updated(self, adaptable, tiny_t5, trained, batch):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        names = dict(model.named_parameters())
        adapters.adapt_ranks(model, rel_tol=0.3)
        assert dict(model.named_parameters()).keys() == names.keys()
        assert all(parameter is names[name] for name, parameter in model.named_parameters())
        rows = {row.name: row.count for row in adapters.freezing_report(model).rows}
        assert rows == {name: parameter.numel() for name, parameter in names.items()}
        model(**batch).loss.backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize(
        ("case", "share"), [*((case, 0.6) for case in ADAPTABLE), *(("tt_lora", share) for share in (0.3, 0.9, 1.0))]
    )
    def test_a_budget_is_kept_and_almost_used_up(self, case, share, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), ADAPTABLE[case]))
        groups, _ = adaptable_trains(model)
        start = parameter_count(groups)
        budget = max(int(start * share), parameters_at_rank_one(groups))
        report = adapters.adapt_ranks(model, budget=budget)
        assert report.parameters_after <= budget
        assert parameter_count(groups) == report.parameters_after
        largest_saving = max(
            group.parameters_at(group.ranks) - group.parameters_at((*group.ranks[:k], rank - 1, *group.ranks[k + 1 :]))
            for group in groups
            for k, rank in enumerate(group.ranks)
        )
        assert report.parameters_after + 3 * largest_saving > budget
        assert report.has_changed == (share < 1.0)

    def test_a_budget_truncates_where_least_is_lost(self, tiny_t5, trained):
        """Deltas that are a hundred times larger keep their ranks, and the others lose theirs."""
        model = trained(adapters.attach(tiny_t5(), LORA))
        groups, _ = adaptable_trains(model)
        for group in groups[::2]:
            group.layers[0].cores[0].data *= 100
        report = adapters.adapt_ranks(model, budget=int(0.7 * parameter_count(groups)))
        assert all(row.after == row.before for row in report.rows[::2])
        assert all(sum(row.after) < sum(row.before) for row in report.rows[1::2])

    def test_of_equal_singular_values_the_one_with_most_parameters_is_truncated(self, tiny_t5):
        """Orthonormal cores: a rank of wi (48 x 24) saves more parameters than a rank of q (24 x 24)."""
        config = {"kind": "tt_lora", "d": 2, "rank": 4, "target_modules": ["q", "wi"], "scaling": 1.0}
        model = adapters.attach(tiny_t5(), config)
        for first, last in (layer.cores for layer in layers_of(model)):
            for core in (first, last):
                orthonormal = torch.linalg.qr(torch.randn(core.numel() // 4, 4))[0]
                core.data = (orthonormal if core is first else orthonormal.mT).reshape(core.shape)
        groups, _ = adaptable_trains(model)
        report = adapters.adapt_ranks(model, budget=parameter_count(groups) - 1)
        assert [row.path.rpartition(".")[2] for row in report.rows if row.after != row.before] == ["wi"]

    def test_the_scaling_is_part_of_the_error(self, tiny_t5, trained):
        two = [
            {**LORA, "scaling": 100.0, "target_modules": ["wi"]},
            {**LORA, "scaling": 0.01, "target_modules": ["wo"]},
        ]
        model = trained(adapters.attach(tiny_t5(), two))
        report = adapters.adapt_ranks(model, budget=int(0.7 * parameter_count(adaptable_trains(model)[0])))
        assert all((row.after == row.before) == row.path.endswith("wi") for row in report.rows)

    def test_a_zero_delta_falls_to_the_minimum_and_continues_to_learn(self, tiny_t5, batch, logits):
        model = adapters.attach(tiny_t5(), {**LORA, "scaling": 16.0})
        base = logits(tiny_t5())
        report = adapters.adapt_ranks(model, rel_tol=0.1, min_rank=2)
        assert {row.after for row in report.rows} == {(2, 2)}
        assert report.error == 0
        assert torch.equal(logits(model), base)
        losses = steps(model, batch, adamw(model), 10)
        assert losses[-1] < losses[0] - 0.1

    @pytest.mark.parametrize("grow", [1, 3])
    def test_growing_changes_nothing_until_training_continues(self, grow, tiny_t5, trained, batch, logits):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        before = logits(model)
        report = adapters.adapt_ranks(model, grow=grow)
        assert {row.after for row in report.rows} == {(2 + grow, 2 + grow)}
        torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
        steps(model, batch, adamw(model))
        values = [torch.linalg.svdvals(layer.full().detach()) for layer in layers_of(model)]
        assert all(int((value > 1e-5 * value[0]).sum()) > 2 for value in values)

    def test_ranks_grow_up_to_the_maximum_and_the_largest_useful_rank(self, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        report = adapters.adapt_ranks(model, grow=100, max_rank=4)
        assert {row.after for row in report.rows} == {(4, 4)}
        adapters.adapt_ranks(model, grow=1000)
        assert all(layer.ranks[1] <= layer.raw_shape[0][0] * layer.raw_shape[1][0] for layer in layers_of(model))

    def test_a_merged_model_is_unmerged(self, tiny_t5, trained, logits):
        model = trained(adapters.attach(tiny_t5(), LORA))
        adapters.merge(model)
        adapters.adapt_ranks(model, max_rank=2)
        assert not adapters.is_merged(model)
        unmerged = logits(model)
        with adapters.merged(model):
            torch.testing.assert_close(logits(model), unmerged, rtol=1e-4, atol=1e-4)

    def test_tasks_share_their_ranks(self, tiny_t5, trained, tmp_path, logits):
        model = tiny_t5()
        for task in ("one", "two"):
            adapters.attach(model, LORA, task)
        trained(model)
        report = adapters.adapt_ranks(model, rel_tol=0.3)
        assert all(len({layer.ranks for layer in group.layers}) == 1 for group in adaptable_trains(model)[0])
        assert len({json.dumps(a.config.to_dict()) for a in adapters.attachments(model)}) == 1
        assert report.has_changed
        adapters.save(model, tmp_path)
        fresh = adapters.load(tiny_t5(), tmp_path)
        for task in ("one", "two"):
            for each in (model, fresh):
                adapters.set_active_task(each, task)
            assert torch.equal(logits(fresh), logits(model))

    @pytest.mark.parametrize("case", FIXED_RANKS)
    def test_a_model_with_fixed_ranks_only_is_reported_with_the_reason(self, case, tiny_t5, snapshot):
        config, reason = FIXED_RANKS[case]
        model = adapters.attach(tiny_t5(), config)
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=reason):
            adapters.adapt_ranks(model, max_rank=1)
        assert snapshot(model) == before

    def test_adapters_with_fixed_ranks_are_not_changed_beside_others(self, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), [LORA, {"kind": "tt_single", "format": "tensor_ring"}]))
        ranks = [m.ranks for m in model.modules() if isinstance(m, TTModule) and m.format == "tensor_ring"]
        report = adapters.adapt_ranks(model, max_rank=2)
        assert list(report.left_alone) == ["tt_single"]
        assert "Not changed: tt_single, because its format is" in str(report)
        assert ranks == [m.ranks for m in model.modules() if isinstance(m, TTModule) and m.format == "tensor_ring"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "'rel_tol'"),
            ({"rel_tol": 1.0}, "'rel_tol'"),
            ({"rel_tol": -0.1}, "'rel_tol'"),
            ({"rel_tol": 0.1, "budget": 100}, "excludes a budget"),
            ({"budget": 0}, "'budget'"),
            ({"budget": 10}, "'budget'.*min_rank"),
            ({"budget": 2000, "min_rank": 5}, "'budget'"),
            ({"rel_tol": 0.1, "min_rank": 0}, "'min_rank'"),
            ({"max_rank": 2, "min_rank": 3}, "'max_rank'"),
            ({"grow": -1}, "'grow'"),
            ({"grow": 0.5}, "'grow'"),
            ({"max_rank": 2.5}, "'max_rank'"),
            ({"max_rank": True}, "'max_rank'"),
            ({"max_rank": 2, "min_rank": 1.5}, "'min_rank'"),
            ({"budget": 2000.5}, "'budget'"),
            ({"budget": math.nan}, "'budget'"),
            ({"rel_tol": "little"}, "'rel_tol'"),
            ({"rel_tol": math.nan}, "'rel_tol'"),
        ],
    )
    def test_invalid_arguments_are_reported(self, arguments, message, tiny_t5, trained, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=message):
            adapters.adapt_ranks(model, **arguments)
        assert snapshot(model) == before

    @pytest.mark.parametrize("change", [lambda model: adapters.adapt_ranks(model, max_rank=2), adapters.orthogonalize])
    def test_a_delta_that_is_not_finite_is_reported_with_its_path(self, change, tiny_t5, trained, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        layers_of(model)[-1].cores[1].data[0, 0, 0, 0] = math.nan
        before = snapshot(model)
        with pytest.raises(ValueError, match=rf"core of tt_lora at {adaptable_trains(model)[0][-1].path} .*finite"):
            change(model)
        assert snapshot(model) == before

    @pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    )  # PEFT 0.21 asks for it
    @pytest.mark.parametrize("change", [lambda model: adapters.adapt_ranks(model, max_rank=2), adapters.orthogonalize])
    def test_deltas_of_peft_are_reported(self, change, tiny_t5, snapshot):
        peft = pytest.importorskip("peft")
        from adapters.peft import TensorTrainConfig

        model = peft.get_peft_model(tiny_t5(ours=False), TensorTrainConfig(rank=3, task_type="SEQ_2_SEQ_LM"))
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=r"PEFT.*attach"):
            change(model)
        assert snapshot(model) == before

    def test_several_processes_are_reported(self, tiny_t5, monkeypatch):
        model = adapters.attach(tiny_t5(), LORA)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        with pytest.raises(adapters.ConfigurationError, match="2 under DDP"):
            adapters.adapt_ranks(model, max_rank=1)

    @pytest.mark.slow
    def test_a_compiled_model_is_compiled_again(self, tiny_t5, trained, batch, logits):
        model = trained(adapters.attach(tiny_t5(num_layers=1, num_decoder_layers=1), LORA))
        compiled = torch.compile(model, backend="eager")
        compiled(**batch)
        adapters.adapt_ranks(compiled, max_rank=2)
        torch.testing.assert_close(logits(compiled), logits(model), rtol=1e-5, atol=1e-5)


class TestOrthogonalize:
    @pytest.mark.parametrize(
        ("case", "center"), [*((case, -1) for case in ADAPTABLE), *(("tt_lora", center) for center in (0, 1))]
    )
    def test_the_model_computes_the_same(self, case, center, tiny_t5, trained, logits):
        model = trained(adapters.attach(tiny_t5(), ADAPTABLE[case]))
        before, ranks = logits(model), [layer.ranks for layer in layers_of(model)]
        cores = [core.detach().clone() for layer in layers_of(model) for core in layer.cores]
        assert adapters.orthogonalize(model, center) == {}
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
        assert [layer.ranks for layer in layers_of(model)] == ranks
        now = [core for layer in layers_of(model) for core in layer.cores]
        assert not all(torch.allclose(old, new) for old, new in zip(cores, now, strict=True))

    def test_a_center_that_does_not_exist_is_reported(self, tiny_t5, snapshot):
        model = adapters.attach(tiny_t5(), LORA)
        before = snapshot(model)
        with pytest.raises(ValueError, match="center"):
            adapters.orthogonalize(model, 3)
        assert snapshot(model) == before
