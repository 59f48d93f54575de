"""The sublayers of a model, each a place where an adapter can sit.

    encoder.block.0.layer.0   self_attention     linears q k v o                norm layer_norm
    encoder.block.0.layer.1   feed_forward       linears wi wo | wi_0 wi_1 wo   norm layer_norm
    decoder.block.0.layer.1   cross_attention    linears q k v o                norm layer_norm
    encoder                   final                                             norm final_layer_norm
    decoder                   final              linear lm_head (beside it)     norm final_layer_norm

The names are T5's; ``adapters.base.architectures`` has those of every supported architecture.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from adapters.base.architectures import ARCHITECTURES, Architecture, SublayerLayout, architecture_of
from adapters.validation import ConfigurationError

LM_HEAD = "lm_head"
"""The name of the output projection among the linears of a ``Sublayer``."""
PEFT_TUNER_HINT = "for another architecture use the PEFT tuner in adapters.peft"


@dataclass(frozen=True)
class Sublayer:
    """One sublayer, or the end of a stack.

    Args:
        stack: name of its stack.
        layer: number of its block; None at the end of a stack.
        kind: "self_attention", "cross_attention", "feed_forward" or "final".
        norm: path of its layer norm.
        linears: path of each linear by name.
        output: path of the linear whose result is added to the hidden states; "" at the end of a stack.
        stack_path: path of its stack.
    """

    stack: str
    layer: int | None
    kind: str
    norm: str
    linears: dict[str, str] = field(default_factory=dict)
    output: str = ""
    stack_path: str = ""


def find_sublayers(model: nn.Module) -> list[Sublayer]:
    """All sublayers in order, with the end of each stack after its blocks.

    Raises:
        ConfigurationError: the architecture is not supported.
    """
    architecture = architecture_of(model)
    if architecture is None:
        known = ", ".join(entry.name for entry in ARCHITECTURES)
        raise ConfigurationError(
            f"Adapters can be attached to the architectures {known} only; got {type(model).__name__}: "
            f"{PEFT_TUNER_HINT}."
        )
    paths = {path for path, _ in model.named_modules()}
    found = []
    for stack_path, stack in model.named_modules():
        if not architecture.is_stack(stack_path, stack):
            continue
        prefix, _, stack_name = f".{stack_path}".rpartition(".")
        for index, block in enumerate(getattr(stack, architecture.blocks)):
            block_path = f"{stack_path}.{architecture.blocks}.{index}"
            for path, layout in _layouts(architecture, block, block_path):
                inner = f"{path}.{layout.module}"
                linears = {name: f"{inner}.{name}" for name in layout.linears if f"{inner}.{name}" in paths}
                output = f"{inner}.{layout.output}"
                norm = f"{path}.{layout.norm}"
                found.append(Sublayer(stack_name, index, layout.kind, norm, linears, output, stack_path))
        head_path = f"{prefix}.{architecture.head}".lstrip(".")
        head = {LM_HEAD: head_path} if stack_name == architecture.stacks[-1] and head_path in paths else {}
        norm = f"{stack_path}.{architecture.final_norm}"
        found.append(Sublayer(stack_name, None, "final", norm, head, stack_path=stack_path))
    return found


def _layouts(architecture: Architecture, block: nn.Module, block_path: str) -> Iterator[tuple[str, SublayerLayout]]:
    """The layout of each sublayer of a block, with the path of the module that holds it."""
    holders = {block_path: block}
    if architecture.sublayers is not None and hasattr(block, architecture.sublayers):
        list_path = f"{block_path}.{architecture.sublayers}"
        holders = {f"{list_path}.{k}": holder for k, holder in enumerate(getattr(block, architecture.sublayers))}
    for path, holder in holders.items():
        layouts = [layout for layout in architecture.layouts if hasattr(holder, layout.module)]
        if not layouts:
            names = ", ".join(layout.module for layout in architecture.layouts)
            raise ConfigurationError(
                f"Each sublayer of a {architecture.name} holds one of {names}; got a {type(holder).__name__} at "
                f"{path}: {PEFT_TUNER_HINT}."
            )
        yield from ((path, layout) for layout in layouts)


def layer_of(name: str) -> str:
    """The label of the layer that a parameter or module belongs to, for any model.

    encoder.block.3.layer.0.SelfAttention.q.weight    "encoder 3"    the stack of a known architecture
    model.layers.3.mlp.up_proj.weight                 "layers 3"     the list of layers of any other
    encoder.final_layer_norm.weight                   "encoder"      outside of all layers: the first part of the name
    """
    parts = name.split(".")
    for position, part in enumerate(parts[1:], start=1):
        if part.isdigit() and parts[position - 1] != "cores":  # the cores of a tensor network are numbered too
            return f"{_label(parts[:position])} {part}"
    return parts[0]


def _label(parents: list[str]) -> str:
    """What the numbered layers below these modules are called."""
    known = any(
        parents[-1] == entry.blocks and parents[-2:-1] and parents[-2] in entry.stacks for entry in ARCHITECTURES
    )
    return parents[-2] if known else parents[-1]


def select_sublayers(config: Any, sublayers: list[Sublayer]) -> list[Sublayer]:
    """The sublayers that the ``stacks``, ``layers`` and ``sublayers`` of a configuration name.

    Raises:
        ConfigurationError: a layer number is too high, or nothing is left.
    """
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
        layers = "" if config.layers is None else f"layers {list(config.layers)} of "
        given = f"{list(config.sublayers)} in {layers}{list(config.stacks)}"
        fix = "cross_attention is in the decoder only, and a final norm in no layer"
        config.refuse("sublayers", "leaves at least one place in the model", given, fix)
    return chosen
