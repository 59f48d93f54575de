"""Sharding over two processes on a CPU, where accelerate ignores it, and gathered tensors stay asynchronous.

on_cpu      lets accelerate 1.15 treat gloo's processes as it treats those of accelerators
together    functions, one after the other, in two processes; what each returned in each of them
"""

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor


def on_cpu() -> None:
    """Change accelerate in this process, which is one of a test's own."""
    make, gather = AcceleratorState.__init__, DTensor.full_tensor

    def make_sharding(self, *args, fsdp_plugin=None, **kwargs):
        make(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin, self.device = (
                DistributedType.FSDP,
                fsdp_plugin,
                torch.device("cpu"),
            )
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)

    def gather_and_wait(*args, **kwargs):
        gathered = gather(*args, **kwargs)
        return gathered.wait() if hasattr(gathered, "wait") else gathered

    mock.patch.object(AcceleratorState, "__init__", make_sharding).start()
    mock.patch.object(DTensor, "full_tensor", gather_and_wait).start()


def together(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """In one of two processes: what each function returned."""
    on_cpu()
    said = []
    for function in functions:
        AcceleratorState._reset_state()  # as a new process has it
        said.append(function())
    torch.distributed.destroy_process_group()
    PartialState._reset_state()
    return said
