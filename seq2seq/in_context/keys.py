"""The JSON keys of the workload ``in_context``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from adapters import AdapterConfig
from adapters.validation import check_keys, check_type, nearest_name, refuse
from seq2seq.in_context.curriculum import Curriculum, Sizes
from seq2seq.in_context.function_classes import FUNCTION_CLASSES
from seq2seq.workload import Workload
from third_party.models.looped import LoopedConfig

MODEL_KEYS = ("block", "n_layer", "hidden_size", "num_heads", "loops", "injection", "positions")
POSITION_KEYS = ("keep_last", "attend_last")
WHERE = "a looped model"
LEAST_PROMPTS = 64
"""Of a probe, half of which are held out."""


@dataclass(frozen=True, kw_only=True)
class InContextKeys(Workload):
    """The fields are the keys.

    Args:
        function_class: what is learned in context, see ``seq2seq.in_context.function_classes``.
        n_dims, n_points: dims of an x, and examples of a prompt.
        n_dims_truncated: the dims that are not zero; None for all.
        noise: the standard deviation of the noise of "noisy".
        nonzero: the entries of "sparse" that are not zero.
        model: the looped transformer, see ``third_party.models.looped``: block, n_layer, hidden_size, num_heads, loops,
            injection and positions, whose number is that of a prompt.
        curriculum: how dims, points and loops grow, see ``seq2seq.in_context.curriculum``; None for full size.
        prompts: prompts of a training epoch, each drawn anew.
        evaluation_prompts: fixed prompts of validation and of test, each.
        probe: whether evaluation measures what a linear read-out of each loop's state knows, see
            ``seq2seq.in_context.probe``.
    """

    name = "in_context"
    flags = ("average_metrics", "standard_error")
    average_name = "negative error at the last point"
    setting_names: ClassVar[Mapping[str, str]] = {
        "n_layer": "L = {}",
        "num_loops": "b = {}",
        "window": "T = {}",
        "keep_last": "keeps the last {}",
        "attend_last": "attends to the last {}",
    }
    untuned_name = "from scratch"
    metric_names = ("error", "last_point_error", "error_at_3b", "average_metrics")
    reserved_arguments: ClassVar[Mapping[str, str]] = {
        "label_smoothing_factor": "there are no classes to smooth",
        "train_sampling_strategy": "all prompts of a step have the same length",
    }
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "n_dims": (1, 1e4),
        "n_dims_truncated": (1, 1e4),
        "n_points": (1, 1e5),
        "noise": (0, 1e3),
        "nonzero": (1, 1e4),
        "prompts": (1, 1e9),
        "evaluation_prompts": (2, 1e6),
    }

    function_class: str = "linear"
    n_dims: int = 3
    n_dims_truncated: int | None = None
    n_points: int = 8
    noise: float = 0.0
    nonzero: int = 1
    model: dict[str, Any] = field(default_factory=dict, hash=False)
    curriculum: Curriculum | None = None
    prompts: int = 64000
    evaluation_prompts: int = 1280
    probe: bool = False

    @property
    def task_label(self) -> str:
        return f"{self.function_class} in {self.n_dims} dims"

    @property
    def model_label(self) -> str:
        return "looped transformer"

    @property
    def looped(self) -> LoopedConfig:
        """The configuration of the model."""
        sizes = {"hidden_size": 64, "input_size": self.n_dims, "output_size": 1}
        positions = {**(self.model.get("positions") or {}), "number": 2 * self.n_points}
        return LoopedConfig(**sizes | self.model | {"positions": positions})

    @property
    def full_sizes(self) -> Sizes:
        """What is evaluated: the dims that are not zero, points and loops."""
        dims = self.n_dims if self.n_dims_truncated is None else self.n_dims_truncated
        return Sizes(dims, self.n_points, self.looped.option("loops").num_loops)

    def sizes_at(self, step: int) -> Sizes:
        """What is trained at an optimizer step, which counts from 0."""
        return self.full_sizes if self.curriculum is None else self.curriculum.at(step, self.full_sizes)

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
        if self.function_class not in FUNCTION_CLASSES:
            fix = nearest_name(self.function_class, FUNCTION_CLASSES)
            refuse("function_class", "names a function class", repr(self.function_class), fix, "the run")
        for key, value, name in (("noise", self.noise, "noisy"), ("nonzero", self.nonzero - 1, "sparse")):
            if value and self.function_class != name:
                rule, given = f"belongs to the function class {name!r}", f"{self.function_class!r}"
                refuse(key, rule, given, "leave it out", "the run")
        if self.probe and min(self.evaluation_prompts / LEAST_PROMPTS, self.n_points / 2) < 1:
            rule = f"needs at least {LEAST_PROMPTS} evaluation_prompts of at least 2 points"
            given = f"{self.evaluation_prompts} of {self.n_points}"
            refuse("probe", rule, given, "raise them, or leave it out", "the run")
        check_keys(self.model, MODEL_KEYS, WHERE)
        for key in ("loops", "injection", "positions"):
            check_type(key, self.model.get(key), dict | None, WHERE)
        check_keys(self.model.get("positions") or {}, POSITION_KEYS, "positions")
        dims = self.full_sizes.dims
        if dims > self.n_dims:
            refuse("n_dims_truncated", f"is at most n_dims, {self.n_dims}", dims, "lower it", "the run")
        if self.nonzero > dims:
            key = "n_dims" if self.n_dims_truncated is None else "n_dims_truncated"
            refuse("nonzero", f"is at most {key}, {dims}", self.nonzero, "lower it", "the run")
        if self.curriculum is not None:
            self.curriculum.check(self.full_sizes)
        if self.looped.option("loops").stop_tolerance is not None:
            refuse("stop_tolerance", "is not supported in a run, which plots all loops", "one", "leave it out", WHERE)
