"""Ranks that change between steps: what the model computes, what the optimizer remembers, what is saved and refused."""

import json
import math

import pytest
import torch

import adapters
from adapters.adaptive_ranks.trains import adaptable_trains, numbers_of
from t3nsor.module import TTModule

LORA = {"kind": "tt_lora", "rank": 5, "scaling": 0.5, "shape_mode": "ascending"}
ADAPTABLE = {
    "tt_lora": LORA,
    "of the attentions": {"kind": "tt_lora", "rank": [3, 4, 3], "d": 4, "target_modules": ["q", "o", "wo"]},
    "low-rank modes": {"kind": "tt_lora", "rank": 4, "modes": ["in", "in", "out", "out"], "bias": "dense"},
    "tt_single": {"kind": "tt_single", "rank": 4, "scaling": -2.0},
    "tt_adapter": {"kind": "tt_adapter", "rank": 4, "reduction_factor": 2},
    "two": [LORA, {"kind": "tt_single", "rank": 3}],
}
LEFT_ALONE = {
    "tensor_ring": ({"kind": "tt_lora", "format": "tensor_ring"}, "tensor_ring"),
    "tensor_basis": ({"kind": "tt_lora", "format": "tensor_basis"}, "tensor_basis"),
    "cp": ({"kind": "tt_lora", "format": "cp"}, "'cp'"),
    "tucker": ({"kind": "tt_lora", "format": "tucker"}, "'tucker'"),
    "principal": ({**LORA, "init": "principal"}, "a start that is kept"),
    "shared": ({**LORA, "shared_cores": [0]}, "shared"),
    "one tensor": ({"kind": "tt_lora", "modes": ["in", "linear", "out"], "target_modules": ["q"]}, "shared"),
    "frozen": ({**LORA, "frozen_cores": [0]}, "frozen"),
    "disabled": ({**LORA, "disabled_cores": [0]}, "disabled"),
    "activation": ({**LORA, "core_activation": "gelu"}, "activation"),
    "tt bias": ({**LORA, "bias": "tt"}, "bias"),
    "one core": ({"kind": "tt_lora", "d": 1}, "single core"),
    "cheapest bottleneck": ({"kind": "tt_adapter", "shape_mode": "cheapest", "reduction_factor": 2}, "cheapest"),
    "another kind": ({"kind": "bottleneck", "reduction_factor": 2}, "bottleneck"),
}


@pytest.fixture(params=ADAPTABLE)
def adaptable(request):
    return ADAPTABLE[request.param]


def layers_of(model):
    return [layer for group in adaptable_trains(model)[0] for layer in group.layers]


def deltas(model):
    """The dense weights of all trains, (out, in), in float64."""
    return [layer.full().detach().double() for layer in layers_of(model)]


def steps(model, batch, optimizer, count=3):
    """The losses of a few steps of training."""
    losses = []
    for _ in range(count):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def adamw(model, lr=0.01):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)


class TestAdaptRanks:
    def test_a_tolerance_holds_for_each_train_and_the_report_says_its_error(self, adaptable, tiny_t5, trained):
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
        assert report.numbers_after == sum(p.numel() for layer in layers_of(model) for p in layer.cores)
        assert report.numbers_after < report.numbers_before

    def test_parameters_stay_trainable_and_are_counted_anew(self, adaptable, tiny_t5, trained, batch):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        names = dict(model.named_parameters())
        adapters.adapt_ranks(model, rel_tol=0.3)
        assert dict(model.named_parameters()).keys() == names.keys()
        assert all(parameter is names[name] for name, parameter in model.named_parameters())
        rows = {row.name: row.count for row in adapters.freezing_report(model).rows}
        assert rows == {name: parameter.numel() for name, parameter in names.items()}
        model(**batch).loss.backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
    def test_a_budget_is_kept_and_no_more_is_cut_than_it_asks(self, share, adaptable, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        groups, _ = adaptable_trains(model)
        start = numbers_of(groups)
        budget = max(int(start * share), numbers_of_rank_one(groups))
        report = adapters.adapt_ranks(model, budget=budget)
        assert report.numbers_after <= budget
        assert numbers_of(groups) == report.numbers_after
        largest_saving = max(
            group.numbers(group.ranks) - group.numbers((*group.ranks[:k], rank - 1, *group.ranks[k + 1 :]))
            for group in groups
            for k, rank in enumerate(group.ranks)
        )
        assert report.numbers_after + 3 * largest_saving > budget
        assert report.has_changed == (share < 1.0)

    def test_a_budget_cuts_where_least_is_lost(self, tiny_t5, trained):
        """Deltas that are a hundred times larger keep their ranks; the others pay."""
        model = trained(adapters.attach(tiny_t5(), LORA))
        groups, _ = adaptable_trains(model)
        for group in groups[::2]:
            group.layers[0].cores[0].data *= 100
        report = adapters.adapt_ranks(model, budget=int(0.7 * numbers_of(groups)))
        assert all(row.after == row.before for row in report.rows[::2])
        assert all(sum(row.after) < sum(row.before) for row in report.rows[1::2])

    def test_scaling_counts(self, tiny_t5, trained):
        two = [
            {**LORA, "scaling": 100.0, "target_modules": ["wi"]},
            {**LORA, "scaling": 0.01, "target_modules": ["wo"]},
        ]
        model = trained(adapters.attach(tiny_t5(), two))
        report = adapters.adapt_ranks(model, budget=int(0.7 * numbers_of(adaptable_trains(model)[0])))
        assert all((row.after == row.before) == row.path.endswith("wi") for row in report.rows)

    def test_a_zero_delta_falls_to_the_floor_and_learns_on(self, tiny_t5, batch, logits):
        model = adapters.attach(tiny_t5(), {**LORA, "scaling": 16.0})
        base = logits(tiny_t5())
        report = adapters.adapt_ranks(model, rel_tol=0.1, min_rank=2)
        assert {row.after for row in report.rows} == {(2, 2)}
        assert report.error == 0
        assert torch.equal(logits(model), base)
        losses = steps(model, batch, adamw(model), 10)
        assert losses[-1] < losses[0] - 0.1

    @pytest.mark.parametrize("grow", [1, 3])
    def test_growing_changes_nothing_until_it_learns(self, grow, tiny_t5, trained, batch, logits):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        before = logits(model)
        report = adapters.adapt_ranks(model, grow=grow)
        assert {row.after for row in report.rows} == {(2 + grow, 2 + grow)}
        torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
        steps(model, batch, adamw(model))
        values = [torch.linalg.svdvals(layer.full().detach()) for layer in layers_of(model)]
        assert all(int((value > 1e-5 * value[0]).sum()) > 2 for value in values)

    def test_ranks_grow_no_further_than_is_of_use_or_allowed(self, tiny_t5, trained):
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

    def test_tasks_keep_ranks_in_common(self, tiny_t5, trained, tmp_path, logits):
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

    @pytest.mark.parametrize("case", LEFT_ALONE)
    def test_what_cannot_change_is_refused_where_nothing_else_can(self, case, tiny_t5, snapshot):
        config, reason = LEFT_ALONE[case]
        model = adapters.attach(tiny_t5(), config)
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=reason):
            adapters.adapt_ranks(model, max_rank=1)
        assert snapshot(model) == before

    def test_and_left_alone_where_something_can(self, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), [LORA, {"kind": "tt_single", "format": "tensor_ring"}]))
        ranks = [m.ranks for m in model.modules() if isinstance(m, TTModule) and m.format == "tensor_ring"]
        report = adapters.adapt_ranks(model, max_rank=2)
        assert list(report.left_alone) == ["tt_single"]
        assert "Left alone: tt_single" in str(report)
        assert ranks == [m.ranks for m in model.modules() if isinstance(m, TTModule) and m.format == "tensor_ring"]

    @pytest.mark.parametrize(
        ("arguments", "said"),
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
    def test_numbers_that_say_nothing_are_refused(self, arguments, said, tiny_t5, trained, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=said):
            adapters.adapt_ranks(model, **arguments)
        assert snapshot(model) == before

    @pytest.mark.parametrize("change", [lambda model: adapters.adapt_ranks(model, max_rank=2), adapters.orthogonalize])
    def test_a_delta_that_is_not_finite_is_refused_by_its_place(self, change, tiny_t5, trained, snapshot):
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
    def test_deltas_of_peft_are_refused_by_name(self, change, tiny_t5, snapshot):
        peft = pytest.importorskip("peft")
        from adapters.peft import TensorTrainConfig

        model = peft.get_peft_model(tiny_t5(ours=False), TensorTrainConfig(rank=3, task_type="SEQ_2_SEQ_LM"))
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match=r"PEFT.*attach"):
            change(model)
        assert snapshot(model) == before

    def test_several_processes_are_refused(self, tiny_t5, monkeypatch):
        model = adapters.attach(tiny_t5(), LORA)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        with pytest.raises(adapters.ConfigurationError, match="2 under DDP"):
            adapters.adapt_ranks(model, max_rank=1)

    @pytest.mark.slow
    def test_a_compiled_model_is_compiled_anew(self, tiny_t5, trained, batch, logits):
        model = trained(adapters.attach(tiny_t5(num_layers=1, num_decoder_layers=1), LORA))
        compiled = torch.compile(model, backend="eager")
        compiled(**batch)
        adapters.adapt_ranks(compiled, max_rank=2)
        torch.testing.assert_close(logits(compiled), logits(model), rtol=1e-5, atol=1e-5)


def numbers_of_rank_one(groups):
    return sum(group.numbers((1,) * len(group.ranks)) for group in groups)


class TestOptimizerState:
    @pytest.mark.parametrize(
        "make",
        [
            adamw,
            lambda model: torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True),
            lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            lambda model: torch.optim.RMSprop(model.parameters(), lr=0.001, momentum=0.9, centered=True),
            lambda model: torch.optim.Adagrad(model.parameters(), lr=0.01),
            lambda model: torch.optim.NAdam(model.parameters(), lr=0.01),
        ],
        ids=["AdamW", "amsgrad", "SGD", "RMSprop", "Adagrad", "NAdam"],
    )
    def test_every_number_is_carried_and_training_goes_on(self, make, tiny_t5, trained, batch):
        model = trained(adapters.attach(tiny_t5(), LORA))
        optimizer = make(model)
        steps(model, batch, optimizer)
        adapters.adapt_ranks(model, optimizer, max_rank=3, grow=1)
        for layer in layers_of(model):
            for core in layer.cores:
                tensors = [value for value in optimizer.state[core].values() if torch.is_tensor(value) and value.dim()]
                assert tensors
                assert all(value.shape == core.shape and value.dtype == core.dtype for value in tensors)
                assert all(value.isfinite().all() for value in tensors)
        steps(model, batch, optimizer)

    def test_means_of_gradients_are_those_in_the_new_gauge(self, tiny_t5, trained, batch):
        """One step with beta1 = 0: what is carried along a change of gauge is the gradient at the new cores."""
        model = trained(adapters.attach(tiny_t5(), LORA)).double()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.0, betas=(0.0, 0.9))
        steps(model, batch, optimizer, 1)
        adapters.orthogonalize(model, optimizer=optimizer)
        model(**batch).loss.backward()
        for layer in layers_of(model):
            for core in layer.cores:
                mean = optimizer.state[core]["exp_avg"]
                torch.testing.assert_close(mean, core.grad, rtol=1e-9, atol=1e-9 * float(core.grad.abs().max()))

    def test_new_directions_start_without_a_mean_and_with_the_mean_square(self, tiny_t5, trained, batch):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        optimizer = adamw(model)
        steps(model, batch, optimizer)
        core = layers_of(model)[0].cores[0]
        square = optimizer.state[core]["exp_avg_sq"].clone()
        adapters.adapt_ranks(model, optimizer, grow=1)
        state = optimizer.state[core]
        assert torch.equal(state["exp_avg_sq"][..., :2], square)
        expected = square.mean().expand(1, *core.shape[1:3], 1)
        torch.testing.assert_close(state["exp_avg_sq"][..., 2:], expected, rtol=1e-5, atol=0)
        assert square.mean() > 0
        assert not state["exp_avg"][..., 2:].any()

    def test_what_is_not_known_is_refused_by_name(self, tiny_t5, trained, batch, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        optimizer = torch.optim.Adamax([p for p in model.parameters() if p.requires_grad])
        steps(model, batch, optimizer, 1)
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match="exp_inf"):
            adapters.adapt_ranks(model, optimizer, max_rank=1)
        assert snapshot(model) == before

    def test_what_is_kept_of_all_numbers_together_is_refused_too(self, tiny_t5, trained, batch, snapshot):
        """L-BFGS keeps all gradients in one vector, under the first Parameter: here one that is no core."""
        model = trained(adapters.attach(tiny_t5(), [{"kind": "layer_norm"}, LORA]))
        optimizer = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], max_iter=2)

        def closure():
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            return loss

        optimizer.step(closure)
        assert next(iter(optimizer.state)) not in {core for layer in layers_of(model) for core in layer.cores}
        before = snapshot(model)
        with pytest.raises(adapters.ConfigurationError, match="of its own size"):
            adapters.adapt_ranks(model, optimizer, max_rank=1)
        assert snapshot(model) == before

    def test_a_loop_that_keeps_its_loss_goes_on(self, tiny_t5, trained, batch):
        """The graph of the step before is alive when ranks change, as in every training loop."""
        model = trained(adapters.attach(tiny_t5(), LORA))
        optimizer = adamw(model)
        schedule = adapters.RankSchedule(start=2, every=2, end=4, rel_tol=0.3)
        for step in range(1, 6):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step(model, optimizer, step)
        assert loss.isfinite()


class TestOrthogonalize:
    @pytest.mark.parametrize("center", [0, 1, -1])
    def test_the_model_is_the_same(self, center, adaptable, tiny_t5, trained, logits):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        before, ranks = logits(model), [layer.ranks for layer in layers_of(model)]
        cores = [core.detach().clone() for layer in layers_of(model) for core in layer.cores]
        assert adapters.orthogonalize(model, center) == {}
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
        assert [layer.ranks for layer in layers_of(model)] == ranks
        now = [core for layer in layers_of(model) for core in layer.cores]
        assert not all(torch.allclose(old, new) for old, new in zip(cores, now, strict=True))

    def test_a_center_that_is_no_core_is_refused(self, tiny_t5, snapshot):
        model = adapters.attach(tiny_t5(), LORA)
        before = snapshot(model)
        with pytest.raises(ValueError, match="center"):
            adapters.orthogonalize(model, 3)
        assert snapshot(model) == before


class TestSaving:
    def test_a_saved_adapter_has_its_ranks_and_loads_anywhere(self, adaptable, tiny_t5, trained, logits, tmp_path):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        adapters.adapt_ranks(model, rel_tol=0.3)
        adapters.save(model, tmp_path)
        assert torch.equal(logits(adapters.load(tiny_t5(), tmp_path)), logits(model))
        fitted = adapters.attach(tiny_t5(), adaptable)
        adapters.fit_ranks(fitted, tmp_path)
        assert torch.equal(logits(adapters.load(fitted, tmp_path)), logits(model))
        assert adapters.attachments(fitted) == adapters.attachments(model)
        counts = [adapters.summary(each).total.trainable for each in (fitted, model)]
        assert counts[0] == counts[1]

    def test_a_whole_model_carries_its_ranks(self, tiny_t5, trained, logits, tmp_path):
        model = trained(adapters.attach(tiny_t5(), LORA))
        adapters.adapt_ranks(model, rel_tol=0.3)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        assert torch.equal(logits(again), logits(model))

    @pytest.mark.parametrize("other", [{**LORA, "scaling": 0.1}, {"kind": "tt_single"}, {**LORA, "d": 2}])
    def test_other_adapters_are_left_to_load_to_refuse(self, other, tiny_t5, trained, tmp_path, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        adapters.adapt_ranks(model, rel_tol=0.3)
        adapters.save(model, tmp_path)
        present = adapters.attach(tiny_t5(), other)
        before = snapshot(present)
        adapters.fit_ranks(present, tmp_path)
        assert snapshot(present) == before
        with pytest.raises(adapters.CheckpointError):
            adapters.load(present, tmp_path)

    @pytest.mark.parametrize(
        ("present", "sizes"),
        [
            (LORA, {"feed_forward_proj": "silu"}),  # every core has the same shape
            ({**LORA, "rank": 4}, {"feed_forward_proj": "silu"}),
            ({**LORA, "rank": 4}, {"num_layers": 3}),
        ],
        ids=str,
    )
    def test_a_folder_of_another_base_leaves_the_deltas(self, present, sizes, tiny_t5, trained, tmp_path, snapshot):
        saved = trained(adapters.attach(tiny_t5(), LORA))
        adapters.adapt_ranks(saved, rel_tol=0.3)
        adapters.save(saved, tmp_path)
        model = trained(adapters.attach(tiny_t5(**sizes), present))
        before = snapshot(model)
        with pytest.raises(adapters.CheckpointError):
            adapters.fit_ranks(model, tmp_path)
        assert snapshot(model) == before

    def test_trains_whose_ranks_are_those_of_the_folder_keep_their_numbers(self, tiny_t5, trained, tmp_path):
        saved = trained(adapters.attach(tiny_t5(), {**LORA, "rank_pattern": {"wo": 2}}))
        adapters.save(saved, tmp_path)
        model = trained(adapters.attach(tiny_t5(), LORA))
        adapters.fit_ranks(model, tmp_path)
        for group in adaptable_trains(model)[0]:
            zero = [not core.any() for core in group.layers[0].cores]
            assert zero == [group.path.endswith("wo")] * 3

    def test_ranks_said_by_another_rank_are_fitted_too(self, adaptable, tiny_t5, trained, logits, tmp_path):
        model = trained(adapters.attach(tiny_t5(), adaptable))
        adapters.save(model, tmp_path)
        entries = adaptable if isinstance(adaptable, list) else [adaptable]
        ranks = [2 if isinstance(entry["rank"], int) else [2] * len(entry["rank"]) for entry in entries]
        others = [{**entry, "rank": rank} for entry, rank in zip(entries, ranks, strict=True)]
        fitted = adapters.attach(tiny_t5(), others)
        adapters.fit_ranks(fitted, tmp_path)
        assert torch.equal(logits(adapters.load(fitted, tmp_path)), logits(model))
        assert adapters.attachments(fitted) == adapters.attachments(model)

    def test_a_compiled_model_is_fitted_as_it_is_by_itself(self, tiny_t5, trained, tmp_path):
        adapters.save(trained(adapters.attach(tiny_t5(), {**LORA, "rank": 3})), tmp_path)
        model = adapters.attach(tiny_t5(), LORA)
        adapters.fit_ranks(torch.compile(model, backend="eager"), tmp_path)
        assert {group.ranks for group in adaptable_trains(model)[0]} == {(3, 3)}
        assert adapters.attachments(adapters.load(model, tmp_path))[0].config.rank == 3

    @pytest.mark.parametrize(
        ("case", "other"),
        [
            *((case, {"rank": 3}) for case in LEFT_ALONE if case not in ("another kind", "cheapest bottleneck")),
            ("tensor_ring", {"rank_pattern": {"wi": 3}}),
        ],
        ids=str,
    )
    def test_trains_that_cannot_change_are_left_to_load(self, case, other, tiny_t5, tmp_path, snapshot):
        config, _ = LEFT_ALONE[case]
        adapters.save(adapters.attach(tiny_t5(), config), tmp_path)
        model = adapters.attach(tiny_t5(), {**config, **other})
        before = snapshot(model)
        adapters.fit_ranks(model, tmp_path)
        assert snapshot(model) == before
        with pytest.raises(adapters.CheckpointError):
            adapters.load(model, tmp_path)

    def test_a_folder_that_cannot_be_read_changes_nothing(self, tiny_t5, tmp_path, snapshot):
        model = adapters.attach(tiny_t5(), LORA)
        before = snapshot(model)
        with pytest.raises(adapters.CheckpointError):
            adapters.fit_ranks(model, tmp_path)
        assert snapshot(model) == before


class TestRankSchedule:
    def test_ranks_fall_evenly_to_the_budget(self, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), LORA))
        start = numbers_of(adaptable_trains(model)[0])
        schedule = adapters.RankSchedule(start=10, every=10, end=49, budget=start // 2)
        reports = {step: schedule.step(model, None, step) for step in range(60)}
        changed = {step: report for step, report in reports.items() if report is not None}
        assert list(changed) == [10, 20, 30, 40] == list(schedule.steps)
        for i, report in enumerate(changed.values(), start=1):
            planned = start - (start - start // 2) * i / 4
            assert 0.93 * planned <= report.numbers_after <= planned + 1
        assert report.numbers_after <= start // 2

    @pytest.mark.parametrize(
        ("cut", "expected"), [({}, [(3, 3), (4, 4), (5, 5)]), ({"rel_tol": 1e-4}, [(3, 3), (3, 3), (2, 2)])]
    )
    def test_what_is_cut_in_the_end_does_not_grow_again(self, cut, expected, tiny_t5, trained):
        model = trained(adapters.attach(tiny_t5(), {**LORA, "rank": 2}))
        schedule = adapters.RankSchedule(start=1, every=1, end=3, grow=1, **cut)
        assert [schedule.step(model, None, step).rows[0].after for step in (1, 2, 3)] == expected

    def test_a_budget_that_no_change_can_reach_is_refused_at_the_first(self, tiny_t5, trained, snapshot):
        model = trained(adapters.attach(tiny_t5(), LORA))
        least = numbers_of_rank_one(adaptable_trains(model)[0])
        before = snapshot(model)
        schedule = adapters.RankSchedule(start=1, every=1, end=9, budget=least - 1)
        with pytest.raises(adapters.ConfigurationError, match=f"they have {least} at the least ranks"):
            schedule.step(model, None, 1)
        assert snapshot(model) == before
        enough = adapters.RankSchedule(start=1, every=1, end=2, budget=least)
        assert [enough.step(model, None, step).numbers_after for step in (1, 2)][-1] == least

    def test_json_there_and_back(self):
        schedule = adapters.RankSchedule(start=1, every=2, end=9, budget=100, min_rank=2, grow=1)
        assert adapters.RankSchedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule

    @pytest.mark.parametrize(
        ("values", "said"),
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
    def test_what_cannot_be_is_refused(self, values, said):
        with pytest.raises(adapters.ConfigurationError, match=said):
            adapters.RankSchedule.from_dict(values)

    @pytest.mark.parametrize(
        ("key", "value"), [("start", 0.5), ("every", True), ("end", 2.5), ("budget", "9"), ("max_rank", 2.5)]
    )
    def test_from_python_too(self, key, value):
        with pytest.raises(adapters.ConfigurationError, match=f"'{key}'"):
            adapters.RankSchedule(**{"start": 1, "every": 1, "end": 2, "grow": 1, key: value})


def test_the_report_is_a_table_and_json(tiny_t5, trained):
    model = trained(adapters.attach(tiny_t5(), LORA))
    report = adapters.adapt_ranks(model, max_rank=2)
    assert "[5, 5]" in str(report)
    assert f"{report.numbers_before:,} numbers before" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["numbers_after"] == report.numbers_after
