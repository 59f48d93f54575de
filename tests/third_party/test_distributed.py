"""Two processes under torchrun, on CPU with gloo, against one process with the same global batch."""

import shutil

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from tests.processes import torchrun
from tests.third_party import tiny
from third_party.trainers import last_complete_checkpoint

pytestmark = pytest.mark.slow

SETTINGS = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
TWO = {**SETTINGS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
ONE = {**SETTINGS, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def one_process(bases, tmp_path_factory):
    trainer = tiny.make_trainer(bases["relu"], tmp_path_factory.mktemp("one"), **ONE)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def all_said(bases, tmp_path_factory):
    """What two processes said of a run and then of one that asks for sharding, and the folders of both."""
    folders = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("sharded")
    two, sharded = ({"base": bases["relu"], "output_dir": folder, **TWO} for folder in folders)
    return torchrun(tiny.runs, two, {**sharded, "fsdp": True}), *folders


@pytest.fixture(scope="module")
def two_processes(all_said):
    """What the two processes said of their run, and its folder."""
    said, folder, _ = all_said
    return [result for result, _ in said], folder


def test_curve_is_that_of_one_process(one_process, two_processes):
    first, second = two_processes[0]
    assert first["losses"] == second["losses"]
    expected = tiny.losses(one_process)
    assert list(first["losses"]) == list(expected)
    assert list(first["losses"].values()) == pytest.approx(list(expected.values()), rel=1e-5)
    norms = [entry["grad_norm"] for entry in one_process.state.log_history if "grad_norm" in entry]
    assert first["norms"] == pytest.approx(norms, rel=1e-4)


def test_processes_end_with_the_same_adapter(one_process, two_processes):
    first, second = two_processes[0]
    assert first["tensors"] == second["tensors"]
    for name, tensor in tiny.tensors(one_process.model).items():
        assert first["tensors"][name] == pytest.approx(tensor.flatten().tolist(), rel=1e-3, abs=1e-4)


def test_only_the_first_process_writes_the_adapter(two_processes):
    said, folder = two_processes
    assert [result["saves"] for result in said] == [2, 0]
    assert {path.name for path in folder.iterdir()} == {"checkpoint-2", "checkpoint-4"}
    assert {path.name for path in (folder / "checkpoint-4").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "processes.txt",
        "rng_state_0.pth",
        "rng_state_1.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    assert (folder / "checkpoint-4" / "processes.txt").read_text() == "2"


def test_run_of_which_one_process_was_killed_goes_on_as_if_nothing_had_been(bases, tmp_path, two_processes):
    """The second process dies before it has written its part of checkpoint 4, so that one is not complete."""
    said, folder = two_processes
    shutil.copytree(folder / "checkpoint-2", tmp_path / "checkpoint-2")
    values = {"base": bases["relu"], "output_dir": tmp_path, **TWO}
    with pytest.raises(ChildFailedError):
        torchrun(tiny.runs, {**values, "kill": "process 1 during step 4"})
    assert (tmp_path / "checkpoint-4" / "adapter_model.safetensors").is_file()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    for before, (after,) in zip(said, torchrun(tiny.runs, values), strict=True):
        assert after["losses"] == before["losses"]
        assert after["tensors"] == before["tensors"]


def test_sharding_on_a_cpu_is_refused_before_training_starts(all_said):
    """accelerate would train with DDP instead; ``tests.sharding`` makes it shard."""
    said, _, folder = all_said
    for _, result in said:
        assert "got fsdp on a CPU" in result["refused"]
    assert list(folder.iterdir()) == []
