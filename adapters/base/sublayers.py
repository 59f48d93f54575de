"""Where in a T5 an adapter can sit.

    encoder.block.0.layer.0   self_attention     linears q k v o                norm layer_norm
    encoder.block.0.layer.1   feed_forward       linears wi wo | wi_0 wi_1 wo   norm layer_norm
    decoder.block.0.layer.1   cross_attention    linears q k v o                norm layer_norm
    encoder                   final                                             norm final_layer_norm
    decoder                   final              linear lm_head (beside it)     norm final_layer_norm

Any model whose stacks look like this will do: T5, T5 v1.1, flan-T5, mT5, and those that hold one.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from adapters.validation import ConfigurationError

INNER_MODULES = {
    "SelfAttention": "self_attention",
    "EncDecAttention": "cross_attention",
    "DenseReluDense": "feed_forward",
}
LM_HEAD = "lm_head"
LINEAR_NAMES = ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")


@dataclass(frozen=True)
class Sublayer:
    """One sublayer: ``linears`` maps a linear's name to its path in the model; ``output`` names the last one."""

    stack: str
    layer: int | None
    kind: str
    norm: str
    linears: dict[str, str] = field(default_factory=dict)

    @property
    def stack_path(self) -> str:
        """Path of the stack that the sublayer belongs to."""
        return self.norm.partition(".block.")[0].removesuffix(".final_layer_norm")

    @property
    def output(self) -> str:
        """Path of the linear whose result the sublayer adds to the hidden states; a final norm has none."""
        return self.linears["wo" if self.kind == "feed_forward" else "o"]


def find_sublayers(model: nn.Module) -> list[Sublayer]:
    """All sublayers in order, the final norm of each stack last.

    Raises:
        ConfigurationError: the model has no T5-like stacks.
    """
    found = []
    for stack_path, stack in model.named_modules():
        stack_name = stack_path.rpartition(".")[2]
        blocks = getattr(stack, "block", None)
        if stack_name not in ("encoder", "decoder") or not isinstance(blocks, nn.ModuleList):
            continue
        for index, block in enumerate(blocks):
            for position, sublayer in enumerate(getattr(block, "layer", [block])):
                path = f"{stack_path}.block.{index}.layer.{position}"
                inner_name = next((name for name in INNER_MODULES if hasattr(sublayer, name)), None)
                if inner_name is None:
                    raise ConfigurationError(
                        f"Each sublayer of a T5 is one of {', '.join(INNER_MODULES)}; at {path} is a "
                        f"{type(sublayer).__name__}: for another architecture use the PEFT tuner in adapters.peft."
                    )
                inner = getattr(sublayer, inner_name)
                linears = {name: f"{path}.{inner_name}.{name}" for name in LINEAR_NAMES if hasattr(inner, name)}
                found.append(Sublayer(stack_name, index, INNER_MODULES[inner_name], f"{path}.layer_norm", linears))
        head_path = f"{stack_path.removesuffix(stack_name)}{LM_HEAD}"
        has_head = stack_name == "decoder" and any(path == head_path for path, _ in model.named_modules())
        head = {LM_HEAD: head_path} if has_head else {}
        found.append(Sublayer(stack_name, None, "final", f"{stack_path}.final_layer_norm", head))
    if not found:
        raise ConfigurationError(
            f"Adapters are attached to models with T5's encoder and decoder stacks; got {type(model).__name__}: "
            "for another architecture use the PEFT tuner in adapters.peft."
        )
    return found


def layer_of(parameter_name: str) -> str:
    """ "encoder.block.3.layer.0..." -> "encoder 3"; what is outside the blocks keeps the name of its part."""
    parts = parameter_name.split(".")
    return f"{parts[0]} {parts[2]}" if parts[1:2] == ["block"] else parts[0]


def select_sublayers(config: Any, sublayers: list[Sublayer]) -> list[Sublayer]:
    """Those that the configuration's stacks, layers and sublayers name; refuses numbers and choices that name none."""
    depths = [
        sublayer.layer for sublayer in sublayers if sublayer.stack in config.stacks and sublayer.layer is not None
    ]
    if config.layers is not None and max(config.layers) > max(depths, default=-1):
        rule = f"counts blocks from 0 to {max(depths, default=-1)} here"
        config.refuse("layers", rule, list(config.layers), "leave the others out")
    chosen = [
        sublayer
        for sublayer in sublayers
        if sublayer.stack in config.stacks
        and sublayer.kind in config.sublayers
        and (config.layers is None or sublayer.layer in config.layers)
    ]
    if not chosen:
        where = f"{'' if config.layers is None else f'layers {list(config.layers)} of '}{list(config.stacks)}"
        mend = "cross_attention stands in the decoder only, a final norm in no layer"
        config.refuse("sublayers", "leaves a place in the model", f"{list(config.sublayers)} in {where}", mend)
    return chosen
