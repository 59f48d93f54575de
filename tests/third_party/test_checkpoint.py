"""Checkpoints of a training: adapter tensors only, the best one at the end, the last whole one."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
from tests.third_party import tiny
from third_party.trainers import last_complete_checkpoint


class TestCheckpoint:
    @pytest.mark.parametrize(
        "adapter",
        [tiny.LORA, [tiny.LORA, {"kind": "layer_norm"}], {"kind": "tt_layer_norm"}, tiny.NOT_LINEAR],
        ids=["tt_lora", "with layer norms", "tt_layer_norm", "not linear"],
    )
    def test_holds_the_unmerged_adapter_only(self, bases, tmp_path, adapter):
        at_step, in_evaluation = {}, []
        callbacks = [
            tiny.At("on_save", lambda state, model: at_step.setdefault(state.global_step, tiny.tensors(model))),
            tiny.At("on_save", lambda state, model: in_evaluation.append(not model.training)),
        ]
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            adapter,
            save_strategy="steps",
            save_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            callbacks=callbacks,
        )
        trainer.train()
        assert in_evaluation == [True, True]
        assert sorted(at_step) == [2, 4]
        for step, expected in at_step.items():
            folder = tmp_path / f"checkpoint-{step}"
            assert {path.name for path in folder.iterdir()} == tiny.CHECKPOINT_FILES
            tiny.assert_same_tensors(load_file(folder / "adapter_model.safetensors"), expected)
            trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
            assert expected.keys() == trained

    def test_saved_inside_a_merged_evaluation_is_unmerged(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, [tiny.LORA, {"kind": "tt_layer_norm", "rank": 2}])
        tiny.randomize(trainer.model)
        expected = tiny.tensors(trainer.model)
        with trainer.merged_for_evaluation():
            assert adapters.is_merged(trainer.model)
            trainer.save_model()
        assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        tiny.assert_same_tensors(load_file(tmp_path / "adapter_model.safetensors"), expected)

    def test_loads_into_a_base_model_by_name(self, bases, tmp_path):
        trainer = tiny.make_trainer(bases["relu"], tmp_path, save_strategy="steps", save_steps=4)
        trainer.train()
        fresh = tiny.adapted_model(bases["relu"], None)
        adapters.load(fresh, tmp_path / "checkpoint-4")
        batch = tiny.collator(fresh)(tiny.rows(4))
        with torch.no_grad():
            logits = [model.eval()(**batch).logits for model in (fresh, trainer.model)]
        assert torch.equal(*logits)

    @pytest.mark.parametrize("scores", [[0.1, 0.9, 0.3], [0.5, 0.2, 0.1], [0.1, 0.2, 0.3]])
    def test_best_model_by_average_metrics_is_loaded_at_the_end(self, bases, tmp_path, scores):
        at_step, to_come = {}, iter(scores)
        trainer = tiny.make_trainer(
            bases["relu"],
            tmp_path,
            max_steps=3,
            save_strategy="steps",
            save_steps=1,
            eval_strategy="steps",
            eval_steps=1,
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="average_metrics",
            greater_is_better=True,
            predict_with_generate=True,
            generation_max_length=4,
            compute_metrics=lambda prediction: {"average_metrics": next(to_come)},
            callbacks=[
                tiny.At("on_step_end", lambda state, model: at_step.update({state.global_step: tiny.tensors(model)}))
            ],
        )
        trainer.train()
        best = 1 + scores.index(max(scores))
        assert trainer.state.best_metric == max(scores)
        assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
        tiny.assert_same_tensors(tiny.tensors(trainer.model), at_step[best])
        assert not any(torch.equal(at_step[best][name], at_step[best % 3 + 1][name]) for name in at_step[best])
        assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{best}"]


FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def write_checkpoint(path, state):
    """A folder with the files of a checkpoint; trainer_state.json has this text, or is missing if it is None."""
    path.mkdir()
    config = {"adapters": [], "architecture": {}, "format_version": 1}
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"core": torch.ones(3)}, path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.arange(4.0), "param_groups": [], "last_epoch": 1}, path / name)
    if state is not None:
        (path / "trainer_state.json").write_text(state)


class TestLastCompleteCheckpoint:
    STATE = json.dumps({"global_step": 1, "max_steps": 4, "log_history": []})

    @pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
    @pytest.mark.parametrize("name", FILES)
    def test_a_damaged_file_passes_the_checkpoint_over_and_is_named(self, tmp_path, caplog, name, damage):
        for step in (2, 4):
            write_checkpoint(tmp_path / f"checkpoint-{step}", self.STATE)
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
        path = tmp_path / "checkpoint-4" / name
        content = path.read_bytes()
        path.unlink() if damage == "missing" else path.write_bytes(b"" if damage == "empty" else content[:-9])
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        assert re.search(rf"checkpoint-4 is passed over: .*{re.escape(name)}", caplog.text)

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            ({}, None),
            ({"checkpoint-2": STATE}, "checkpoint-2"),
            ({"checkpoint-9": STATE, "checkpoint-10": STATE}, "checkpoint-10"),
            ({"checkpoint-2": STATE, "checkpoint-4": None}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": ""}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": STATE[:-3]}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": "[]"}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": '{"global_step": 4}'}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-4": "[" * 100_000}, "checkpoint-2"),
            ({"checkpoint-2": STATE, "checkpoint-best": STATE, "checkpoint-": STATE}, "checkpoint-2"),
            ({"checkpoint-2": None, "checkpoint-4": None}, None),
        ],
    )
    def test_is_the_newest_whole_one(self, tmp_path, found, expected):
        for name, state in found.items():
            write_checkpoint(tmp_path / name, state)
        assert last_complete_checkpoint(tmp_path) == (None if expected is None else tmp_path / expected)

    @pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
    @pytest.mark.parametrize("other", [torch.ones(2), {"weights": torch.ones(2)}])
    def test_a_file_of_something_else_passes_the_checkpoint_over(self, tmp_path, caplog, name, other):
        for step in (2, 4):
            write_checkpoint(tmp_path / f"checkpoint-{step}", self.STATE)
        torch.save(other, tmp_path / "checkpoint-4" / name)
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        assert name in caplog.text

    @pytest.mark.parametrize("lost", range(3))
    def test_the_random_state_of_each_process_is_needed(self, tmp_path, caplog, lost):
        for step in (2, 4):
            write_checkpoint(tmp_path / f"checkpoint-{step}", self.STATE)
            (tmp_path / f"checkpoint-{step}" / "rng_state.pth").unlink()
            (tmp_path / f"checkpoint-{step}" / "processes.txt").write_text("3")
            for process in range(3):
                torch.save({"cpu": torch.zeros(2)}, tmp_path / f"checkpoint-{step}" / f"rng_state_{process}.pth")
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
        (tmp_path / "checkpoint-4" / f"rng_state_{lost}.pth").unlink()
        assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        assert f"rng_state_{lost}.pth cannot be read" in caplog.text

    def test_if_none_is_left_of_those_that_were_whole_the_folder_to_delete_is_named(self, tmp_path):
        write_checkpoint(tmp_path / "checkpoint-2", None)
        write_checkpoint(tmp_path / "checkpoint-4", self.STATE)
        (tmp_path / "checkpoint-4" / "optimizer.pt").unlink()
        with pytest.raises(adapters.CheckpointError, match=f"got {tmp_path}, .* none is left: delete that folder"):
            last_complete_checkpoint(tmp_path)

    def test_of_a_folder_that_is_not_there_is_none(self, tmp_path):
        assert last_complete_checkpoint(tmp_path / "nowhere") is None
