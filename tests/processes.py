"""Processes that start at once: forked from a server that has imported torch, transformers and the packages.

    started     one process
    forked      one process, to its end
    torchrun    several, with torchrun's own launcher

They call a function that can be imported, with the environment and the cache of datasets that this process has now.
"""

import multiprocessing
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

PRELOADED = ["seq2seq.running.jobs", "seq2seq.text.workload", "matplotlib.figure", "tests.third_party.tiny"]


def started(function: Callable[..., Any], *arguments: Any) -> multiprocessing.Process:
    """A process that calls the function; its exit status is 1 after an error and -n if signal n has ended it."""
    process = server().Process(target=call, args=(*surroundings(), function, arguments))
    process.start()
    return process


def forked(function: Callable[..., Any], *arguments: Any) -> int:
    """The exit status of a process that has called the function."""
    process = started(function, *arguments)
    process.join()
    return process.exitcode


def torchrun(function: Callable[..., Any], *arguments: Any, processes: int = 2) -> list[Any]:
    """What the function returned in each process, by rank.

    Raises:
        ChildFailedError: one of them failed or was killed; the launcher has stopped the others.
    """
    server()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(uuid.uuid4()),
        max_restarts=0,
        start_method="forkserver",
    )
    returned = elastic_launch(config, call)(*surroundings(), function, arguments)
    return [returned[rank] for rank in range(processes)]


def server() -> multiprocessing.context.ForkServerContext:
    """The context of processes that are forked; it is told what to import before the first of them starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def surroundings() -> tuple[dict[str, str], Path]:
    """What a forked process would have taken from this one, had it been started now."""
    return dict(os.environ), Path(datasets.config.HF_DATASETS_CACHE)


def call(environment: Mapping[str, str], cache: Path, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """In the new process: the call, on one thread; what the launcher has set in the environment stays."""
    os.environ.update(environment)
    datasets.config.HF_DATASETS_CACHE = cache
    torch.set_num_threads(1)
    return function(*arguments)
