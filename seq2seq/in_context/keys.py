"""The JSON keys of the workload ``in_context``."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

from adapters import AdapterConfig
from adapters.validation import check_keys, check_type, nearest_name, refuse
from seq2seq.in_context.classification import Classification
from seq2seq.in_context.curriculum import Curriculum, Sizes
from seq2seq.in_context.function_classes import FUNCTION_CLASSES
from seq2seq.in_context.regression import Regression
from seq2seq.in_context.tasks import Task
from seq2seq.in_context.token_tasks import Addition, PHop
from seq2seq.workload import Workload
from third_party.models.looped import LoopedConfig

logger = logging.getLogger(__name__)

MODEL_KEYS = ("block", "n_layer", "hidden_size", "num_heads", "loops", "injection", "positions")
POSITION_KEYS = ("keep_last", "attend_last")
WHERE = "a looped model"
LEAST_PROMPTS = 64
"""Of a probe, half of which are held out."""

VECTORS, TOKENS = tuple(FUNCTION_CLASSES), ("p_hop", "addition")
"""Function classes: those whose outputs are regression, and those whose outputs are classification."""

BELONGS: Mapping[str, tuple[str, ...]] = {
    "n_dims": VECTORS,
    "n_dims_truncated": VECTORS,
    "probe": VECTORS,
    "noise": ("noisy",),
    "nonzero": ("sparse",),
    "hops": ("p_hop",),
    "alphabet": ("p_hop",),
    "digits": ("addition",),
}
"""The function classes of keys that not all of them have."""


@dataclass(frozen=True, kw_only=True)
class InContextKeys(Workload):
    """The fields are the keys.

    Args:
        function_class: what is learned in context, see ``seq2seq.in_context.function_classes`` and ``token_tasks``.
        n_dims: dims of an x.
        n_points: examples of a prompt, tokens of "p_hop", or operands of "addition".
        n_dims_truncated: the dims that are not zero; None for all.
        noise: the standard deviation of the noise of "noisy".
        nonzero: the entries of "sparse" that are not zero.
        hops, alphabet: p, and the number of tokens, of "p_hop".
        digits: of an operand of "addition".
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
    smaller_is_better = ("error", "last_point_error", "error_at_3b")
    setting_names: ClassVar[Mapping[str, str]] = {
        "n_layer": "L = {}",
        "num_loops": "b = {}",
        "window": "T = {}",
        "keep_last": "keeps the last {}",
        "attend_last": "attends to the last {}",
    }
    untuned_name = "from scratch"
    reserved_arguments: ClassVar[Mapping[str, str]] = {
        "label_smoothing_factor": "no loss is smoothed",
        "train_sampling_strategy": "all prompts of a step have the same length",
    }
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "n_dims": (1, 1e4),
        "n_dims_truncated": (1, 1e4),
        "n_points": (1, 1e5),
        "noise": (0, 1e3),
        "nonzero": (1, 1e4),
        "hops": (1, 1e4),
        "alphabet": (3, 1e5),
        "digits": (1, 9),
        "prompts": (1, 1e9),
        "evaluation_prompts": (2, 1e6),
    }

    function_class: str = "linear"
    n_dims: int = 3
    n_dims_truncated: int | None = None
    n_points: int = 8
    noise: float = 0.0
    nonzero: int = 1
    hops: int = 1
    alphabet: int = 4
    digits: int = 1
    model: dict[str, Any] = field(default_factory=dict, hash=False)
    curriculum: Curriculum | None = None
    prompts: int = 64000
    evaluation_prompts: int = 1280
    probe: bool = False

    @property
    def task_label(self) -> str:
        return self.task.label

    @property
    def task(self) -> Task:
        """The function class with its options."""
        if self.function_class == "p_hop":
            return Classification(PHop(self.hops, self.alphabet))
        if self.function_class == "addition":
            return Classification(Addition(self.digits))
        active = self.n_dims if self.n_dims_truncated is None else self.n_dims_truncated
        return Regression(self.function_class, self.n_dims, active, self.noise, self.nonzero)

    @property
    def metric_names(self) -> tuple[str, ...]:
        of_answers = ("accuracy", "accuracy_at_3b")
        return (*(of_answers if self.on_tokens else ("error", "last_point_error", "error_at_3b")), "average_metrics")

    @classmethod
    def average_name(cls, metrics: Collection[str]) -> str:
        return "accuracy" if "accuracy" in metrics else "negative error at the last point"

    @property
    def on_tokens(self) -> bool:
        return self.function_class in TOKENS

    @property
    def model_label(self) -> str:
        return "looped transformer"

    @property
    def looped(self) -> LoopedConfig:
        """The configuration of the model."""
        sizes = self.task.model_sizes(self.n_points)
        positions = {**(self.model.get("positions") or {}), **sizes["positions"]}
        return LoopedConfig(**{"hidden_size": 64} | self.model | sizes | {"positions": positions})

    @cached_property
    def full_sizes(self) -> Sizes:
        """What is evaluated: the dims that are not zero, points and loops."""
        dims = None if self.on_tokens else self.task.active
        return Sizes(dims, self.n_points, self.looped.option("loops").num_loops)

    def sizes_at(self, step: int) -> Sizes:
        """What is trained at an optimizer step, which counts from 0."""
        return self.full_sizes if self.curriculum is None else self.curriculum.at(step, self.full_sizes)

    def check(self, configs: Sequence[AdapterConfig], training: Mapping[str, Any]) -> None:
        if self.function_class not in (*VECTORS, *TOKENS):
            fix = nearest_name(self.function_class, (*VECTORS, *TOKENS))
            refuse("function_class", "names a function class", repr(self.function_class), fix, "the run")
        defaults = {field.name: field.default for field in fields(self)}
        for key, classes in BELONGS.items():
            if getattr(self, key) != defaults[key] and self.function_class not in classes:
                rule = f"belongs to the function class {' or '.join(map(repr, classes))}"
                refuse(key, rule, repr(self.function_class), "leave it out", "the run")
        if self.function_class == "noisy" and not self.noise:
            refuse(
                "noise", 'is positive in "noisy"', self.noise, 'write for example 0.5, or choose "linear"', "the run"
            )
        least = self.task.least_points
        if self.n_points < least:
            refuse("n_points", f"is at least {least} in {self.task_label}", self.n_points, "raise it", "the run")
        if self.probe and min(self.evaluation_prompts / LEAST_PROMPTS, self.n_points / 2) < 1:
            rule = f"needs at least {LEAST_PROMPTS} evaluation_prompts of at least 2 points"
            given = f"{self.evaluation_prompts} of {self.n_points}"
            refuse("probe", rule, given, "raise them, or leave it out", "the run")
        check_keys(self.model, MODEL_KEYS, WHERE)
        for key in ("loops", "injection", "positions"):
            check_type(key, self.model.get(key), dict | None, WHERE)
        self.check_window(configs)
        check_keys(self.model.get("positions") or {}, POSITION_KEYS, "positions")
        if not self.on_tokens:
            self.check_dims()
        if self.curriculum is not None:
            if self.on_tokens and self.curriculum.dims is not None:
                refuse("dims", "is one of vectors", repr(self.function_class), "leave it out", "the curriculum")
            self.curriculum.check(self.full_sizes)
            last = training.get("max_steps", -1)
            if last > 0 and (reached := self.curriculum.at(last - 1, self.full_sizes)) != self.full_sizes:
                logger.warning(
                    "Training ends within the curriculum, at %s; evaluation is at %s.", reached, self.full_sizes
                )
            points = self.curriculum.at(0, self.full_sizes).points
            if points < least:
                rule = f"is at least {least} in {self.task_label}"
                refuse("start", rule, points, "raise it", "the curriculum over points")
        if self.looped.option("loops").stop_tolerance is not None:
            refuse("stop_tolerance", "is not supported in a run, which plots all loops", "one", "leave it out", WHERE)

    def check_window(self, configs: Sequence[AdapterConfig]) -> None:
        """Refuse what loops have of their own if the first ones have no gradient."""
        loops = self.looped.option("loops")
        per_loop = self.looped.option("injection").scale_per_loop or any(
            getattr(config, "loops", None) is not None or "loop" in (getattr(config, "modes", None) or ())
            for config in configs
        )
        if per_loop and loops.window is not None and loops.window < loops.num_loops:
            rule = f"is at least num_loops, {loops.num_loops}, if each loop has a delta or a scale of its own"
            refuse("window", rule, loops.window, "leave it out: earlier loops would not train", WHERE)

    def check_dims(self) -> None:
        """Refuse more dims than there are."""
        dims = self.full_sizes.dims
        if dims > self.n_dims:
            refuse("n_dims_truncated", f"is at most n_dims, {self.n_dims}", dims, "lower it", "the run")
        if self.nonzero > dims:
            key = "n_dims" if self.n_dims_truncated is None else "n_dims_truncated"
            refuse("nonzero", f"is at most {key}, {dims}", self.nonzero, "lower it", "the run")
