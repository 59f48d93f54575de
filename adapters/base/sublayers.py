"""The sublayers of a model, each a place where an adapter can sit, and the linears outside of them.

    encoder.block.0.layer.0   self_attention     linears q k v o                norms layer_norm
    encoder.block.0.layer.1   feed_forward       linears wi wo | wi_0 wi_1 wo   norms layer_norm
    decoder.block.0.layer.1   cross_attention    linears q k v o                norms layer_norm
    (beside the stacks)       embedding                                         norms after the embeddings, as in BERT
    encoder                   final                                             norms final_layer_norm
    decoder                   final              linear lm_head (beside it)     norms final_layer_norm
    pooler                    other              linear pooler-dense            none

The names are T5's; ``adapters.base.architectures`` has those of every known architecture. In an unknown one every
linear is an "other" one: it can be named, but nothing is known of its role.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from adapters.base.architectures import ARCHITECTURES, known_stacks
from adapters.base.heads import head_parameters, output_projection
from adapters.base.layout import SublayerLayout
from adapters.base.linear_layers import LINEAR_CLASSES
from adapters.base.loops import LoopCounter, loops_of
from adapters.base.sites import site_of_path, unique_site_names
from adapters.validation import ConfigurationError

LM_HEAD = "lm_head"
"""The name of the output projection among the linears of a ``Sublayer``."""
OTHER = "other"
"""The kind of a linear outside of all known sublayers."""


@dataclass(frozen=True)
class Sublayer:
    """One sublayer, the norm after the embeddings, the end of a stack, or a linear outside of these.

    Args:
        stack: "encoder" or "decoder"; for another linear the path of the list that its layer is in.
        layer: number of its block; None outside of the blocks.
        kind: "self_attention", "cross_attention", "feed_forward", "embedding", "final" or ``OTHER``.
        norms: paths of its layer norms.
        linears: path of each linear by name, the shortest end of its path that no other one of the sublayer has.
        roles: the role of each linear by name, see ``adapters.base.layout``.
        output: path of the linear whose result is added to the hidden states; "" if there is none.
        prompt_stack: path of its stack, at the end of one whose input prompts can lengthen; "" elsewhere.
        tower: the path of its stack without dots, if another stack of the model has the same name; "" elsewhere.
        loops: the counter of the looped module that its linears are in; None if they run once.
    """

    stack: str
    layer: int | None
    kind: str
    norms: tuple[str, ...] = ()
    linears: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    output: str = ""
    prompt_stack: str = ""
    tower: str = ""
    loops: LoopCounter | None = None


def find_sublayers(model: nn.Module) -> list[Sublayer]:
    """All sublayers in order, with the end of each stack after its blocks, and last the linears outside of them."""
    known = list(_known_sublayers(model))
    covered = {path for sublayer in known for path in sublayer.linears.values()}
    found = [*known, *_other_linears(model, covered)]
    for path, loops in loops_of(model).items():
        found = [replace(s, loops=loops) if _is_below(path, s) else s for s in found]
    return found


def _known_sublayers(model: nn.Module) -> Iterator[Sublayer]:
    paths = {path for path, _ in model.named_modules()}
    stacks = known_stacks(model)
    names = {path: architecture.stack_name(path, stack) for path, stack, architecture in stacks}
    for position, (stack_path, stack, architecture) in enumerate(stacks, 1):
        name, above = names[stack_path], stack_path.rpartition(".")[0]
        tower = stack_path.replace(".", "-") if [*names.values()].count(name) > 1 else ""
        norm = architecture.embedding_norm
        candidates = [_joined(holder, norm) for holder in dict.fromkeys((stack_path, above)) if norm]
        if found := [path for path in candidates if path in paths][:1]:
            yield Sublayer(name, None, "embedding", tuple(found))
        for index, block in enumerate(getattr(stack, architecture.blocks)):
            block_path = _joined(stack_path, architecture.blocks, str(index))
            for inner, layout in architecture.held(block):
                yield replace(_sublayer(name, index, layout, _joined(block_path, inner), paths), tower=tower)
        norms = tuple(_joined(stack_path, norm) for norm in architecture.final_norms)
        head = {LM_HEAD: path} if position == len(stacks) and (path := output_projection(model)) else {}
        prompts = stack_path if architecture.supports_prompts else ""
        yield Sublayer(name, None, "final", tuple(p for p in norms if p in paths), head, prompt_stack=prompts)


def _sublayer(stack: str, index: int, layout: SublayerLayout, path: str, paths: set[str]) -> Sublayer:
    linears = {_joined(path, linear): role for role, linear in layout.linears if _joined(path, linear) in paths}
    names = _shortest_unique_ends([linear.removeprefix(f"{path}.") for linear in linears])
    return Sublayer(
        stack,
        index,
        layout.kind,
        tuple(_joined(path, norm) for norm in layout.norms),
        dict(zip(names, linears, strict=True)),
        dict(zip(names, linears.values(), strict=True)),
        _joined(path, layout.output),
    )


def _other_linears(model: nn.Module, covered: set[str]) -> Iterator[Sublayer]:
    """The linears outside of ``covered``, but for the output projection and the head of a classifier, as in PEFT."""
    heads = {*head_parameters(model), f"{output_projection(model)}.weight"}
    paths = [
        path
        for path, module in model.named_modules()
        if isinstance(module, LINEAR_CLASSES)
        and path not in covered
        and f"{path}.weight" not in heads
        and ".tasks." not in path  # a part of an adapter
    ]
    for path, name in unique_site_names(paths).items():
        stack, layer, _ = site_of_path(path)
        yield Sublayer(stack, layer, OTHER, linears={name: path})


def _is_below(path: str, sublayer: Sublayer) -> bool:
    below = f"{path}." if path else ""
    return bool(sublayer.linears) and all(linear.startswith(below) for linear in sublayer.linears.values())


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _shortest_unique_ends(paths: list[str]) -> list[str]:
    """attention.self.query, output.dense, intermediate.dense -> query, output-dense, intermediate-dense."""
    names = []
    for path in paths:
        parts = path.split(".")
        ends = ["-".join(parts[k:]) for k in reversed(range(len(parts)))]
        others = [f"-{other.replace('.', '-')}" for other in paths if other != path]
        names.append(next(end for end in ends if not any(other.endswith(f"-{end}") for other in others)))
    return names


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
        ConfigurationError: the architecture is unknown, a layer number is too high, or nothing is left.
    """
    if all(sublayer.kind == OTHER for sublayer in sublayers):
        raise ConfigurationError(
            f"Adapter kind {config.kind!r} needs to know the sublayers of the model; got an architecture other than "
            f"{', '.join(entry.name for entry in ARCHITECTURES)}: use a kind that names its linears in "
            "target_modules, such as tt_lora, or add an entry to adapters.base.architectures."
        )
    check_layers(config, [s for s in sublayers if s.stack in config.stacks])
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
        fix = f"this model has {_what_is_there(sublayers)}"
        config.refuse("sublayers", "leaves at least one place in the model", given, fix)
    return chosen


def check_layers(config: Any, sublayers: list[Sublayer]) -> None:
    """Refuse numbers of ``layers`` that none of the sublayers has."""
    depths = [sublayer.layer for sublayer in sublayers if sublayer.layer is not None]
    if config.layers is not None and max(config.layers) > max(depths, default=-1):
        rule = f"counts blocks from 0 to {max(depths, default=-1)} here"
        config.refuse("layers", rule, list(config.layers), "leave the others out")


def _what_is_there(sublayers: list[Sublayer]) -> str:
    """The kinds of sublayers by stack, such as "self_attention, feed_forward in its encoder"."""
    kinds: dict[str, dict[str, None]] = {}
    for sublayer in sublayers:
        if sublayer.kind != OTHER:
            kinds.setdefault(sublayer.stack, {})[sublayer.kind] = None
    return " and ".join(f"{', '.join(found)} in its {stack}" for stack, found in kinds.items())
