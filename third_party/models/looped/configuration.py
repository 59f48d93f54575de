"""LoopedConfig: the sizes of a looped transformer, and its options by what they concern.

    LoopedConfig(input_size=4, loops={"num_loops": 12, "window": 5}, positions={"attend_last": 16})

Without injection every loop sees the input only through the state that it started from (weight tying alone).
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from transformers import PreTrainedConfig

from adapters.validation import check_keys, check_type, from_json, nearest_name, refuse


@dataclass(frozen=True, kw_only=True)
class Loops:
    """How often the stack is applied.

    Args:
        num_loops: b; can be changed at evaluation.
        window: T, the last loops that have a graph, as long backpropagation is unstable and costs memory; None for all.
        stop_tolerance: evaluation ends when the state moves by less than this share of its norm; None for never.
    """

    num_loops: int = 12
    window: int | None = None
    stop_tolerance: float | None = None

    def __post_init__(self) -> None:
        for key in ("num_loops", "window"):
            value = getattr(self, key)
            if value is not None and value < 1:
                refuse(key, "must be at least 1", value, "write a positive number", "loops")
        if self.stop_tolerance is not None and not self.stop_tolerance > 0:
            refuse("stop_tolerance", "must be positive", self.stop_tolerance, "1e-3 is typical", "loops")


@dataclass(frozen=True, kw_only=True)
class Injection:
    """How the input reaches each loop.

    Args:
        kind: it is added to the state (Yang et al. 2023), multiplied with it, or is the initial state only; then all
            loops have a graph, as the read-in has its gradient from the first one.
        learnable_scale: whether a factor of the injected input trains; initially 1. Not with kind "none".
        scale_per_loop: whether each loop multiplies its input by a trainable vector, initially 1: the cheapest way to
            make loops differ. Loops beyond the trained ones use the last vector.
    """

    kind: Literal["add", "multiply", "none"] = "add"
    learnable_scale: bool = False
    scale_per_loop: bool = False


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Which positions are read.

    Args:
        number: the longest sequence, for learned positions.
        keep_last: the state is carried over at the last N positions only, and starts again, from the input, at the
            others; None for all.
        attend_last: a position sees only the last N positions up to itself; None for all of them.
    """

    number: int = 256
    keep_last: int | None = None
    attend_last: int | None = None

    def __post_init__(self) -> None:
        for key, least in (("number", 1), ("keep_last", 0), ("attend_last", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                refuse(key, f"must be at least {least}", value, "raise it, or leave it out", "positions")

    def check_length(self, length: int) -> None:
        """Refuse a sequence that is longer than ``number``."""
        if length > self.number:
            given, fix = f"{self.number} for {length}", "shorten the input, or make a model with more positions"
            refuse("number", "must be at least the length of the input", given, fix, "positions")


NESTED = {"loops": Loops, "injection": Injection, "positions": Positions}
SIZES = ("n_layer", "hidden_size", "num_heads", "vocab_size", "input_size", "output_size", "trained_loops")
OPTIONAL = ("input_size", "output_size", "trained_loops")
BLOCKS = ("gpt2", "llama")
WHERE = "a looped model"


class LoopedConfig(PreTrainedConfig):
    """The configuration of a ``LoopedModel``.

    Args:
        block: whose blocks the stack has, "gpt2" (learned positions) or "llama" (rotary ones).
        n_layer: L, blocks in the stack.
        hidden_size: E.
        num_heads: of the attention.
        input_size: numbers of an input vector; None for token ids.
        output_size: numbers that are predicted at each position; with token ids None for the vocabulary.
        vocab_size: number of tokens; unused with vectors.
        loops, injection, positions: the options, as objects of this module or their JSON form.
        trained_loops: loops that have a scale or a delta of their own; None for ``num_loops`` when the first model is
            made. It is saved, so that ``num_loops`` can change later.

    Raises:
        ConfigurationError: an option is unknown or out of range, or without effect beside another one.
    """

    model_type = "looped"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["by_loop", "loops", "states"]

    def __init__(
        self,
        block: str = "gpt2",
        n_layer: int = 1,
        hidden_size: int = 256,
        num_heads: int = 4,
        input_size: int | None = None,
        output_size: int | None = None,
        vocab_size: int = 128,
        loops: Loops | dict[str, Any] | None = None,
        injection: Injection | dict[str, Any] | None = None,
        positions: Positions | dict[str, Any] | None = None,
        trained_loops: int | None = None,
        **kwargs: Any,
    ) -> None:
        if block not in BLOCKS:
            refuse("block", f"is one of {', '.join(BLOCKS)}", repr(block), "choose one of them", WHERE)
        sizes = (n_layer, hidden_size, num_heads, vocab_size, input_size, output_size, trained_loops)
        for key, value in zip(SIZES, sizes, strict=True):
            if value is None and key in OPTIONAL:
                continue
            if check_type(key, value, int, WHERE) < 1:
                refuse(key, "must be at least 1", value, "write a positive number", WHERE)
        if hidden_size % num_heads:
            given = f"{hidden_size} and {num_heads} heads"
            refuse("hidden_size", "is a multiple of num_heads", given, "change one of them", WHERE)
        if block == "llama" and hidden_size // num_heads % 2:
            given = f"{hidden_size // num_heads}"
            refuse("hidden_size", "gives rotary heads an even size", given, "change it or num_heads", WHERE)
        if input_size is not None and output_size is None:
            refuse("output_size", "is required with vectors", "none", "write for example 1", WHERE)
        self.block, self.n_layer, self.hidden_size, self.num_heads = block, n_layer, hidden_size, num_heads
        self.input_size, self.output_size, self.vocab_size = input_size, output_size, vocab_size
        self.trained_loops = trained_loops
        for key, given in (("loops", loops), ("injection", injection), ("positions", positions)):
            setattr(self, key, asdict(as_options(NESTED[key], {} if given is None else given, key)))
        check_used(self.option("loops"), self.option("injection"))
        check_misspelled(kwargs)
        super().__init__(**kwargs)

    def option(self, key: str) -> Any:
        """The options "loops", "injection" or "positions" as an object."""
        return NESTED[key](**getattr(self, key))


def as_options(cls: type, given: Any, where: str) -> Any:
    """Options as an object of their class, from that or from their JSON form.

    Raises:
        ConfigurationError: a key is unknown, or a value is not of its type.
    """
    values = asdict(given) if isinstance(given, cls) else given
    if not isinstance(values, dict):
        refuse(where, "is an object", repr(given), f"write keys of {cls.__name__} with their values", WHERE)
    return from_json(cls, values, where)


def check_used(loops: Loops, injection: Injection) -> None:
    """Refuse options that would silently train nothing where the input is the initial state only."""
    if injection.kind != "none":
        return
    if injection.learnable_scale:
        refuse("learnable_scale", 'needs an injected input, not kind "none"', "true", "leave it out", "injection")
    if loops.window is not None and loops.window < loops.num_loops:
        rule = 'is at least num_loops with injection "none", where the read-in has its gradient from the first loop'
        given = f"{loops.window} of {loops.num_loops} loops"
        refuse("window", rule, given, "leave it out, or inject the input", "loops")


def check_misspelled(given: dict[str, Any]) -> None:
    """Refuse a key that is neither an option nor of transformers, and close to an option: it would be unused."""
    options, of_transformers = [*SIZES, *NESTED, "block"], PreTrainedConfig()
    for key in given:
        if not hasattr(of_transformers, key) and nearest_name(key, options).startswith("did you mean"):
            check_keys([key], options, WHERE)
