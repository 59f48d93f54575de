"""Which linears of a pretrained model share a weight, and the networks that tell their depths apart.

    N layers as n_layer shared blocks: depth l uses block l mod n_layer, in loop l // n_layer

A model of 4 layers with n_layer 2 runs blocks 0, 1, 0, 1; the linears of one name at depths 0 and 2 share a weight.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

import t3nsor as t3
from adapters.base.linear_layers import describe, features, is_plain_linear, keep_children
from adapters.base.sublayers import find_sublayers
from adapters.validation import check_type, refuse
from third_party.models.looped.configuration import as_options
from third_party.models.looped.shared_linear import SharedLinear

WHERE = "a model to loop"


@dataclass(frozen=True, kw_only=True)
class DepthDeltas:
    """The network T_l of each linear at each depth.

    Args:
        rank: of every bond, clipped to the largest useful one.
        format: "tensor_train", or "low_rank", a product (out, r) x (r, in), as in Relaxed Recursive Transformers (Bae
            et al. 2024, arXiv:2410.20672).
        d: cores of a "tensor_train"; None for 3.
    """

    rank: int = 8
    format: Literal["tensor_train", "low_rank"] = "tensor_train"
    d: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            check_type(field.name, getattr(self, field.name), field.type, "deltas")
        for key in ("rank", "d"):
            value = getattr(self, key)
            if value is not None and value < 1:
                refuse(key, "must be at least 1", value, "write a positive number", "deltas")
        if self.format == "low_rank" and self.d is not None:
            refuse("d", "belongs to a tensor_train", self.d, "leave it out", "deltas")

    def network(self, in_features: int, out_features: int) -> t3.TTLinear:
        """A T (out, in) that is zero, its other cores random; low rank has the cores (1, 1, in, r), (r, out, 1, 1)."""
        low_rank = self.format == "low_rank"
        shape = ((1, out_features), (in_features, 1)) if low_rank else None
        d = 2 if low_rank else self.d or 3
        return t3.TTLinear(
            in_features,
            out_features,
            bias=False,
            tt_rank=self.rank,
            raw_shape=shape or t3.tt_shape(in_features, out_features, d),
            zero_core=d - 1,
        )


def as_deltas(deltas: DepthDeltas | dict[str, Any] | None) -> DepthDeltas | None:
    """The deltas from their JSON form; ConfigurationError if they are not an object, or a key or a value is unknown."""
    return None if deltas is None else as_options(DepthDeltas, deltas, "deltas")


def groups_of(model: nn.Module, n_layer: int) -> list[list[str]]:
    """The paths of the linears that share a weight, one list for each linear of the shared blocks, in loop order.

    Raises:
        ConfigurationError: the model is not one of transformers with a single stack of equal layers, n_layer does not
            divide their number, or a linear is not plain.
    """
    sublayers = [s for s in find_sublayers(model) if s.layer is not None and s.linears]
    stacks = {s.stack for s in sublayers}
    if not isinstance(model, PreTrainedModel) or len(stacks) != 1:
        given = f"a {type(model).__name__} with {len(stacks)}"
        refuse("model", "is of transformers, with one stack of layers", given, "use a GPT-2 or a Llama", WHERE)
    layers = 1 + max(s.layer for s in sublayers)
    if type(n_layer) is not int or n_layer < 1 or n_layer >= layers or layers % n_layer:
        rule = f"divides the {layers} layers of the model and is smaller"
        refuse("n_layer", rule, n_layer, "choose a divisor", WHERE)
    groups: dict[tuple[int, str, str], list[str]] = {}
    for sublayer in sublayers:
        for name, path in sublayer.linears.items():
            groups.setdefault((sublayer.layer % n_layer, sublayer.kind, name), []).append(path)
    for (_, _, name), paths in groups.items():
        linears = [model.get_submodule(path) for path in paths]
        if wrong := [linear for linear in linears if not is_plain_linear(linear)]:
            given = f"{describe(wrong[0])} at {paths[linears.index(wrong[0])]}"
            refuse("model", "has plain linears", given, "loop it before it is adapted or factorized", WHERE)
        if len(paths) != layers // n_layer or len({features(linear) for linear in linears}) != 1:
            refuse("model", "has equal layers", f"others at {name}", "choose another model or n_layer", WHERE)
    return list(groups.values())


def share_weights(model: nn.Module, n_layer: int, deltas: DepthDeltas | None) -> list[dict[str, SharedLinear]]:
    """Put shared linears in the place of the layers' linears, in place; the owners keep the weight of the first loop.

    Returns:
        For each linear of the shared blocks, those that share its weight by path, the owner first.
    """
    shared = []
    for paths in groups_of(model, n_layer):
        group: dict[str, SharedLinear] = {}
        for path in paths:
            linear = model.get_submodule(path)
            with linear.weight.device:
                delta = None if deltas is None else deltas.network(*features(linear))
            group[path] = SharedLinear(linear, next(iter(group.values()), None), delta)
            model.set_submodule(path, group[path])
            keep_children(model.get_submodule(path.rpartition(".")[0]))
        shared.append(group)
    return shared
