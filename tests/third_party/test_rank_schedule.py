"""Ranks that change while a trainer trains: killed runs resume bit for bit, the history, the best checkpoint."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

import adapters
from adapters.adaptive_ranks.trains import adaptable_trains
from tests.processes import forked
from tests.third_party import tiny
from third_party.trainers import RankScheduleCallback, last_complete_checkpoint

LORA = {"kind": "tt_lora", "rank": 4, "scaling": 4.0, "shape_mode": "ascending"}
SCHEDULE = adapters.RankSchedule(start=2, every=2, end=6, rel_tol=0.5, min_rank=2, grow=1)
SETTINGS = {
    "max_steps": 8,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "count": 10,
    "weight_decay": 0.1,
    "lr_scheduler_type": "cosine",
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
}


class Stop(TrainerCallback):
    """Fails at an event of a step, as a machine would."""

    def __init__(self, event, step):
        self.step = step
        setattr(self, event, self.stop)

    def stop(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def make(base, folder, schedule=SCHEDULE, stop=None, **values):
    callbacks = [RankScheduleCallback(schedule, folder / "ranks.json"), *([] if stop is None else [Stop(*stop)])]
    return tiny.make_trainer(base, folder, LORA, callbacks=callbacks, **{**SETTINGS, **values})


def resume(base, folder):
    trainer = make(base, folder)
    checkpoint = last_complete_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def ranks(model):
    return [group.ranks for group in adaptable_trains(model)[0]]


def history(folder):
    return json.loads((Path(folder) / "ranks.json").read_text())


@pytest.fixture(scope="module")
def whole(bases, tmp_path_factory):
    """The run that nobody stops."""
    trainer = make(bases["dropout"], tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


def assert_same_run(trainer, whole):
    keys = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")
    curves = [
        [{key: entry[key] for key in keys if key in entry} for entry in each.state.log_history[:-1]]
        for each in (trainer, whole)
    ]
    assert curves[0] == curves[1]
    tiny.assert_same_tensors(tiny.tensors(trainer.model), tiny.tensors(whole.model))
    assert history(trainer.args.output_dir) == history(whole.args.output_dir)
    assert adapters.attachments(trainer.model) == adapters.attachments(whole.model)
    assert trainer.state.best_metric == whole.state.best_metric
    assert trainer.state.best_global_step == whole.state.best_global_step


def test_ranks_change_after_the_steps_of_the_schedule(whole):
    entries = history(whole.args.output_dir)
    assert [entry["step"] for entry in entries] == [0, 2, 4, 6]
    assert entries[0]["ranks"]["tt_lora"] == {path: [4, 4] for path in entries[0]["ranks"]["tt_lora"]}
    assert len({json.dumps(entry["ranks"]) for entry in entries}) > 2
    assert [tuple(of_path) for of_path in entries[-1]["ranks"]["tt_lora"].values()] == ranks(whole.model)
    counts = adapters.summary(whole.model)
    assert entries[-1]["numbers"] == counts.total.trainable


@pytest.mark.parametrize(
    ("event", "step", "kept"),
    [
        ("on_step_end", 2, None),  # ranks have changed, and nothing is saved
        ("on_save", 2, 2),
        ("on_substep_end", 3, 2),
        ("on_step_end", 4, 2),  # they have changed again since the checkpoint
        ("on_save", 6, 6),  # for the last time
    ],
)
def test_a_run_stopped_at_any_moment_goes_on_as_if_nothing_had_been(bases, tmp_path, whole, event, step, kept):
    with pytest.raises(KeyboardInterrupt):
        make(bases["dropout"], tmp_path, stop=(event, step)).train()
    assert last_complete_checkpoint(tmp_path) == (None if kept is None else tmp_path / f"checkpoint-{kept}")
    assert_same_run(resume(bases["dropout"], tmp_path), whole)


def test_the_optimizer_of_a_resumed_run_has_the_ranks_of_its_checkpoint(bases, tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        make(bases["dropout"], tmp_path, stop=("on_step_begin", 5)).train()
    trainer = make(bases["dropout"], tmp_path, stop=("on_step_end", 5))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    for parameter in (p for p in trainer.model.parameters() if p.requires_grad):
        state = trainer.optimizer.state[parameter]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape


def test_the_model_loaded_at_the_end_has_the_last_ranks(bases, tmp_path):
    """Evaluation prefers an early checkpoint, of larger ranks; it is forgotten where ranks change."""
    schedule = adapters.RankSchedule(start=4, every=1, end=4, rel_tol=0.9)
    worse = {"eval_loss": iter([0.1, 0.2, 0.4, 0.3])}
    trainer = make(bases["relu"], tmp_path, schedule)
    evaluate = trainer.evaluate

    def evaluate_worse(*args, **kwargs):
        metrics = {**evaluate(*args, **kwargs), "eval_loss": next(worse["eval_loss"])}
        return metrics

    trainer.evaluate = evaluate_worse
    trainer.train()
    assert trainer.state.best_global_step == 4
    saved = adapters.load(tiny.adapted_model(bases["relu"], None), tmp_path / "checkpoint-4")
    tiny.assert_same_tensors(tiny.tensors(trainer.model), tiny.tensors(saved))
    assert ranks(trainer.model) == [tuple(r) for r in history(tmp_path)[-1]["ranks"]["tt_lora"].values()]


def test_a_best_checkpoint_after_the_last_change_is_loaded_with_its_ranks(bases, tmp_path):
    schedule = adapters.RankSchedule(start=2, every=1, end=2, rel_tol=0.9)
    trainer = make(bases["relu"], tmp_path, schedule)
    trainer.train()
    assert trainer.state.best_global_step >= 2
    assert ranks(trainer.model) != ranks(tiny.adapted_model(bases["relu"], LORA))


def test_a_run_without_a_schedule_takes_no_other_ranks(bases, tmp_path, whole):
    trainer = tiny.make_trainer(bases["dropout"], tmp_path, LORA, **SETTINGS)
    with pytest.raises(adapters.CheckpointError, match="fields differ"):
        trainer.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-8"))


def test_an_optimizer_that_cannot_follow_is_refused_after_one_step(bases, tmp_path):
    trainer = make(bases["relu"], tmp_path, adapters.RankSchedule(start=7, every=1, end=7, rel_tol=0.5))
    trainer.optimizer = torch.optim.Adamax([p for p in trainer.model.parameters() if p.requires_grad])
    with pytest.raises(adapters.ConfigurationError, match="exp_inf"):
        trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize(("start", "end"), [(9, 9), (2, 10)])
def test_a_schedule_that_ends_after_the_run_is_refused(bases, tmp_path, start, end):
    """2, 4, ..., 10 of 8 steps: a budget would never be reached."""
    trainer = make(bases["relu"], tmp_path, adapters.RankSchedule(start=start, every=2, end=end, budget=1000))
    with pytest.raises(adapters.ConfigurationError, match=f"last change after {end} of 8 steps"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert not (tmp_path / "ranks.json").exists()


def test_a_budget_that_cannot_be_is_refused_before_the_first_step(bases, tmp_path):
    trainer = make(bases["relu"], tmp_path, adapters.RankSchedule(start=2, every=2, end=6, budget=10))
    with pytest.raises(adapters.ConfigurationError, match=r"'budget'.*at the smallest ranks"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert not (tmp_path / "ranks.json").exists()


def test_a_second_training_has_a_history_of_its_own(bases, tmp_path):
    trainer = make(bases["relu"], tmp_path, load_best_model_at_end=False, save_strategy="no", eval_strategy="no")
    trainer.train()
    last = history(tmp_path)[-1]
    trainer.train()
    entries = history(tmp_path)
    assert [entry["step"] for entry in entries] == [0, 2, 4, 6]
    assert entries[0]["ranks"] == last["ranks"]


def test_steps_count_up_to_the_last_change(bases, tmp_path):
    schedule = adapters.RankSchedule(start=2, every=6, end=13, rel_tol=0.5)
    make(bases["relu"], tmp_path, schedule).train()
    assert [entry["step"] for entry in history(tmp_path)] == [0, 2, 8]


def test_several_processes_are_refused(bases, tmp_path, monkeypatch):
    trainer = make(bases["relu"], tmp_path)
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, RankScheduleCallback))
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    with pytest.raises(ValueError, match="one process"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)


@pytest.mark.slow
def test_a_run_killed_by_the_system_goes_on_as_if_nothing_had_been(bases, tmp_path, whole):
    values = {"rank_schedule": SCHEDULE.to_dict(), "adapter": LORA, "kill": "process 0 during step 6", **SETTINGS}
    values |= {"base": bases["dropout"], "output_dir": tmp_path}
    assert forked(tiny.runs, values) == -signal.SIGKILL
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert os.path.isfile(tmp_path / "ranks.json")
    assert_same_run(resume(bases["dropout"], tmp_path), whole)
