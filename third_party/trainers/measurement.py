"""The costs of a training run: step time, throughput, peak memory, memory by layer; and a progress bar with them.

Step times are wall-clock seconds of whole optimisation steps (all micro-batches and the update), without evaluation and
checkpoints in between. The first step, which allocates, is left out of the median, and with torch.compile the second,
which compiles: the first batch is checked uncompiled (``adapters.acting``). Activations are measured after the forward
pass of the second micro-batch, when memory peaks; the other memory after the first update.
"""

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState

from adapters.base.sublayers import layer_of
from adapters.sharded import is_sharded, local
from third_party.trainers.activations import saved_activations


def tensor_bytes(tensor: Any) -> int:
    """Bytes of a tensor's elements in this process; 0 for anything else."""
    return local(tensor).numel() * tensor.element_size() if isinstance(tensor, Tensor) else 0


def memory_by_layer(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, dict[str, int]]:
    """Bytes of parameters, gradients and optimizer state, by layer ("encoder 0", "decoder 3", "shared", ...)."""
    state = {}
    if optimizer is not None:
        state = getattr(optimizer, "optimizer", optimizer).state
    layers: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        row = layers.setdefault(layer_of(name), {"parameters": 0, "gradients": 0, "optimizer": 0})
        row["parameters"] += tensor_bytes(parameter)
        row["gradients"] += tensor_bytes(parameter.grad)
        row["optimizer"] += sum(tensor_bytes(value) for value in state.get(parameter, {}).values())
    return layers


def peak_memory_bytes() -> int:
    """Peak memory so far: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


class MeasurementCallback(TrainerCallback):
    """Collects the costs of a run; ``to_dict`` gives them in seconds, inputs and bytes.

    Args:
        compiled: whether torch.compile decides what is saved for the backward pass; activations are not measured then.
        unit: the unit of the throughput, such as "source tokens".
    """

    def __init__(self, compiled: bool = False, unit: str = "rows") -> None:
        self.compiled = compiled
        self.unit = unit
        self.step_seconds: list[float] = []
        self.total_counted = 0
        self.micro_batches = 0
        self.layers: dict[str, dict[str, int]] = {}
        self.activations: dict[str, int] | None = None
        self.sharded = False
        self._started = 0.0
        self._step_counted = 0

    def count(self, size: int) -> None:
        """Add a micro-batch of this size, in ``unit``."""
        self.micro_batches += 1
        self._step_counted += size

    @contextlib.contextmanager
    def forward_pass(self, model: nn.Module) -> Iterator[None]:
        """A context around each forward pass and its loss; measures the activations of the second micro-batch."""
        self.sharded = is_sharded(model)
        unmeasurable = self.compiled or self.sharded or not torch.is_grad_enabled()
        if self.micro_batches != 2 or self.activations is not None or unmeasurable:
            yield
            return
        with saved_activations(model) as layers:
            yield
        self.activations = layers

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()
        self._step_counted = 0

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if not self.layers:
            self.layers = memory_by_layer(kwargs["model"], kwargs.get("optimizer"))

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.step_seconds.append(time.perf_counter() - self._started)
        self.total_counted += self._step_counted

    def median_step_seconds(self) -> float | None:
        """The median over all steps but the first, or the first two if they compile; None before the first."""
        counted = self.step_seconds[2 if self.compiled else 1 :] or self.step_seconds
        return statistics.median(counted) if counted else None

    def inputs_per_second(self) -> float | None:
        """Inputs of this process per second of training; None before the first step."""
        seconds = sum(self.step_seconds)
        return self.total_counted / seconds if seconds else None

    def progress(self) -> str:
        """Speed and memory, as far as they are measured."""
        step, speed = self.median_step_seconds(), self.inputs_per_second()
        parts = [
            None if step is None else f"{1000 * step:.0f} ms/step",
            None if speed is None else f"{speed:,.0f} {self.unit.split()[-1]}/s",
            f"{peak_memory_bytes() / 2**20:,.0f} MiB",
        ]
        return ", ".join(part for part in parts if part is not None)

    def activations_not_measured(self) -> str | None:
        """Why activations were not measured; None if they were."""
        if self.activations is not None:
            return None
        if self.sharded:
            return "blocks of a sharded model save what they gather"
        return "torch.compile decides what is saved" if self.compiled else "there was no second micro-batch"

    def memory_by_layer(self) -> dict[str, dict[str, int | None]]:
        """Bytes by layer; activations are None if they were not measured."""
        measured = self.activations
        nothing = {"parameters": 0, "gradients": 0, "optimizer": 0}
        return {
            layer: {
                **self.layers.get(layer, nothing),
                "activations": None if measured is None else measured.get(layer, 0),
            }
            for layer in dict.fromkeys([*self.layers, *(measured or ())])
        }

    def scalars(self) -> dict[str, float | None]:
        """The costs that are one number, so far; None for what is not measured yet."""
        return {
            "step_seconds_median": self.median_step_seconds(),
            "tokens_per_second": self.inputs_per_second(),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "steps_measured": len(self.step_seconds),
            **self.scalars(),
            "unit": self.unit,
            "memory_by_layer": self.memory_by_layer(),
            "activations_not_measured": self.activations_not_measured(),
        }


class ProgressLineCallback(TrainerCallback):
    """One progress bar for training and one for each evaluation; costs follow the bar.

    Args:
        measurement: the costs.
        flags: metrics that are not shown, if others are; without them, only ``average_metrics`` is shown.
        label: which training this is, if it is not the only one of a run.
    """

    def __init__(self, measurement: MeasurementCallback, flags: Sequence[str] = (), label: str = "") -> None:
        self.measurement = measurement
        self.flags = tuple(flags)
        self.label = label
        self.bar: tqdm | None = None
        self.evaluation_bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.named("train"), dynamic_ncols=True
            )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        if self.bar is None or not logs:
            return
        if "loss" in logs:
            self.bar.set_postfix_str(
                f"loss {float(logs['loss']):.3f}, lr {float(logs['learning_rate']):.1e}, {self.measurement.progress()}"
            )
        elif "eval_loss" in logs:
            scores = "".join(f", {name} {value:.3f}" for name, value in self.scores(logs).items())
            self.bar.write(self.named(f"step {state.global_step}: eval_loss {logs['eval_loss']:.3f}{scores}"))

    def named(self, text: str) -> str:
        """A text after the label, if there is one."""
        return f"{self.label}, {text}" if self.label else text

    def scores(self, logs: dict[str, float]) -> dict[str, float]:
        """The metrics of an evaluation to show: those of the task, or their mean if it has several tasks or none."""
        values = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
        named = {name: value for name, value in values.items() if self.flags and name not in (*self.flags, "loss")}
        if named and not any("/" in name for name in named):
            return named
        return {"average_metrics": values["average_metrics"]} if "average_metrics" in values else {}

    def on_prediction_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        loader = kwargs.get("eval_dataloader")
        if state.is_world_process_zero and loader is not None and hasattr(loader, "__len__"):
            if self.evaluation_bar is None:
                self.evaluation_bar = tqdm(
                    total=len(loader), desc=self.named("evaluate"), leave=False, dynamic_ncols=True
                )
            self.evaluation_bar.update(1)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._close_evaluation_bar()

    def on_predict(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._close_evaluation_bar()

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _close_evaluation_bar(self) -> None:
        if self.evaluation_bar is not None:
            self.evaluation_bar.close()
            self.evaluation_bar = None
