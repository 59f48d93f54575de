"""Adapters whose ranks have changed are saved, and loaded into models with or without adapters."""

import pytest
import torch

import adapters
from adapters.adaptive_ranks.trains import adaptable_trains

from .settings import ADAPTABLE, FIXED_RANKS, LORA


class TestSaving:
    def test_a_saved_adapter_loads_into_a_model_with_or_without_adapters(
        self, adaptable, tiny_t5, trained, logits, tmp_path
    ):
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

    def test_a_whole_model_is_saved_with_its_ranks(self, tiny_t5, trained, logits, tmp_path):
        model = trained(adapters.attach(tiny_t5(), LORA))
        adapters.adapt_ranks(model, rel_tol=0.3)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        assert torch.equal(logits(again), logits(model))

    @pytest.mark.parametrize("other", [{**LORA, "scaling": 0.1}, {"kind": "tt_single"}, {**LORA, "d": 2}])
    def test_other_adapters_are_not_changed_and_load_reports_them(self, other, tiny_t5, trained, tmp_path, snapshot):
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
    def test_a_folder_of_another_base_changes_nothing(self, present, sizes, tiny_t5, trained, tmp_path, snapshot):
        saved = trained(adapters.attach(tiny_t5(), LORA))
        adapters.adapt_ranks(saved, rel_tol=0.3)
        adapters.save(saved, tmp_path)
        model = trained(adapters.attach(tiny_t5(**sizes), present))
        before = snapshot(model)
        with pytest.raises(adapters.CheckpointError):
            adapters.fit_ranks(model, tmp_path)
        assert snapshot(model) == before

    def test_trains_that_have_the_ranks_of_the_folder_keep_their_values(self, tiny_t5, trained, tmp_path):
        saved = trained(adapters.attach(tiny_t5(), {**LORA, "rank_pattern": {"wo": 2}}))
        adapters.save(saved, tmp_path)
        model = trained(adapters.attach(tiny_t5(), LORA))
        adapters.fit_ranks(model, tmp_path)
        for group in adaptable_trains(model)[0]:
            zero = [not core.any() for core in group.layers[0].cores]
            assert zero == [group.path.endswith("wo")] * 3

    @pytest.mark.parametrize("case", ["attentions", "tt_adapter", "two adapters"])
    def test_another_rank_in_the_configuration_is_fitted_too(self, case, tiny_t5, trained, logits, tmp_path):
        adaptable = ADAPTABLE[case]
        model = trained(adapters.attach(tiny_t5(), adaptable))
        adapters.save(model, tmp_path)
        entries = adaptable if isinstance(adaptable, list) else [adaptable]
        ranks = [2 if isinstance(entry["rank"], int) else [2] * len(entry["rank"]) for entry in entries]
        others = [{**entry, "rank": rank} for entry, rank in zip(entries, ranks, strict=True)]
        fitted = adapters.attach(tiny_t5(), others)
        adapters.fit_ranks(fitted, tmp_path)
        assert torch.equal(logits(adapters.load(fitted, tmp_path)), logits(model))
        assert adapters.attachments(fitted) == adapters.attachments(model)

    def test_a_compiled_model_is_fitted_like_the_original(self, tiny_t5, trained, tmp_path):
        adapters.save(trained(adapters.attach(tiny_t5(), {**LORA, "rank": 3})), tmp_path)
        model = adapters.attach(tiny_t5(), LORA)
        adapters.fit_ranks(torch.compile(model, backend="eager"), tmp_path)
        assert {group.ranks for group in adaptable_trains(model)[0]} == {(3, 3)}
        assert adapters.attachments(adapters.load(model, tmp_path))[0].config.rank == 3

    @pytest.mark.parametrize(
        ("case", "other"),
        [
            *((case, {"rank": 3}) for case in ("tucker", "principal", "shared", "tt bias")),
            ("tensor_ring", {"rank_pattern": {"wi": 3}}),
        ],
        ids=str,
    )
    def test_trains_with_fixed_ranks_are_not_changed_and_load_reports_them(
        self, case, other, tiny_t5, tmp_path, snapshot
    ):
        config, _ = FIXED_RANKS[case]
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
