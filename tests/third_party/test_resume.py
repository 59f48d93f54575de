"""A run that is killed goes on to the same curve."""

import shutil
import signal
from pathlib import Path

import pytest

import adapters
from tests.processes import forked
from tests.third_party import tiny
from third_party.trainers import last_complete_checkpoint

RESUMABLE = {
    "adapter": {"kind": "tt_lora", "rank": 2, "dropout": 0.1},
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "count": 10,  # an epoch is two steps and a half one, so that runs break off inside epochs too
    "weight_decay": 0.1,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
}


@pytest.fixture(scope="module")
def uninterrupted(bases, tmp_path_factory):
    """The run that nobody kills; the base has dropout, so its curve depends on the state of the generators."""
    trainer = tiny.make_trainer(bases["dropout"], tmp_path_factory.mktemp("uninterrupted"), **RESUMABLE)
    trainer.train()
    return trainer


def resume(base, folder):
    """The same run in what would be a new process."""
    trainer = tiny.make_trainer(base, folder, **RESUMABLE)
    checkpoint = last_complete_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def assert_same_run(trainer, uninterrupted):
    def curve(of):
        keys = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")
        return [{key: entry[key] for key in keys if key in entry} for entry in of.state.log_history[:-1]]

    assert curve(trainer) == curve(uninterrupted)
    tiny.assert_same_tensors(tiny.tensors(trainer.model), tiny.tensors(uninterrupted.model))
    assert trainer.state.best_metric == uninterrupted.state.best_metric
    assert Path(trainer.state.best_model_checkpoint).name == Path(uninterrupted.state.best_model_checkpoint).name


class TestResume:
    @pytest.mark.parametrize(
        ("event", "step", "kept"),
        [
            ("on_step_begin", 0, None),
            ("on_step_end", 1, None),
            ("on_evaluate", 2, None),
            ("on_save", 2, 2),
            ("on_substep_end", 3, 2),
            ("on_step_end", 4, 2),
            ("on_log", 5, 4),
            ("on_save", 6, 6),
        ],
    )
    def test_run_killed_at_any_moment_goes_on_as_if_nothing_had_been(
        self, bases, tmp_path, uninterrupted, event, step, kept
    ):
        def kill(state, model):
            if state.global_step == step:
                raise KeyboardInterrupt

        trainer = tiny.make_trainer(bases["dropout"], tmp_path, callbacks=[tiny.At(event, kill)], **RESUMABLE)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        last = last_complete_checkpoint(tmp_path)
        assert last == (None if kept is None else tmp_path / f"checkpoint-{kept}")
        assert_same_run(resume(bases["dropout"], tmp_path), uninterrupted)

    def test_partial_newest_checkpoint_is_passed_over(self, bases, tmp_path, uninterrupted):
        """Killed while it wrote checkpoint 4: some file is missing, and so is the state, which is written last."""
        for step in (2, 4):
            shutil.copytree(Path(uninterrupted.args.output_dir) / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
        (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
        for lost in sorted(tiny.CHECKPOINT_FILES - {"trainer_state.json"}):
            (tmp_path / "checkpoint-4" / lost).unlink()
            assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
        resumed = resume(bases["dropout"], tmp_path)
        assert tiny.losses(resumed) == tiny.losses(uninterrupted)
        assert {path.name for path in (tmp_path / "checkpoint-4").iterdir()} == tiny.CHECKPOINT_FILES

    def test_checkpoint_of_other_adapters_is_refused(self, bases, tmp_path, uninterrupted):
        other = tiny.make_trainer(bases["dropout"], tmp_path, **{**RESUMABLE, "adapter": tiny.NOT_LINEAR})
        before = tiny.tensors(other.model)
        with pytest.raises(adapters.CheckpointError, match="tt_lora"):
            other.train(resume_from_checkpoint=str(Path(uninterrupted.args.output_dir) / "checkpoint-2"))
        tiny.assert_same_tensors(tiny.tensors(other.model), before)

    @pytest.mark.slow
    @pytest.mark.parametrize(("kill", "kept"), [("process 0 during step 4", 2), ("process 0 after step 4", 4)])
    def test_run_killed_by_the_system_goes_on_as_if_nothing_had_been(self, bases, tmp_path, uninterrupted, kill, kept):
        values = {"base": bases["dropout"], "output_dir": tmp_path, "kill": kill, **RESUMABLE}
        assert forked(tiny.runs, values) == -signal.SIGKILL
        assert (tmp_path / "checkpoint-4" / "adapter_model.safetensors").is_file()
        assert last_complete_checkpoint(tmp_path) == tmp_path / f"checkpoint-{kept}"
        assert_same_run(resume(bases["dropout"], tmp_path), uninterrupted)
