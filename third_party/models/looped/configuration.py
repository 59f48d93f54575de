"""LoopedConfig: the sizes of a looped transformer, and its options by what they concern.

    LoopedConfig(input_size=4, loops={"num_loops": 12, "window": 5}, positions={"attend_last": 16})

Without injection every loop sees the input only through the state that it started from (weight tying alone).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from transformers import PreTrainedConfig

from adapters.validation import check_type, from_json, refuse


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
        kind: it is added to the state (Yang et al. 2023), multiplied with it, or is the initial state only.
        learnable_scale: whether a factor of the injected input trains; initially 1.
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
        keep_last: the state is carried over at the last N positions only, and starts again at the others; None for all.
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


NESTED = {"loops": Loops, "injection": Injection, "positions": Positions}
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

    Raises:
        ConfigurationError: an option is unknown or out of range.
    """

    model_type = "looped"

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
        **kwargs: Any,
    ) -> None:
        if block not in BLOCKS:
            refuse("block", f"is one of {', '.join(BLOCKS)}", repr(block), "choose one of them", WHERE)
        for key, value in (("n_layer", n_layer), ("hidden_size", hidden_size), ("num_heads", num_heads)):
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
        for key, given in (("loops", loops), ("injection", injection), ("positions", positions)):
            read = given if isinstance(given, NESTED[key]) else from_json(NESTED[key], given or {}, key)
            setattr(self, key, asdict(read))
        super().__init__(**kwargs)

    def option(self, key: str) -> Any:
        """The options "loops", "injection" or "positions" as an object."""
        return NESTED[key](**getattr(self, key))
