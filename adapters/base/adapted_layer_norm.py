"""A frozen layer norm with adapters: one that takes its place, and vectors that are added to its output."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.mergeable import Mergeable
from adapters.base.norm_layers import centred, computes_as_its_class, epsilon, is_norm, offset
from adapters.base.places import Place

KEPT = ("training", "_kept")


class AdaptedLayerNorm(Mergeable):
    """Mixin for a layer norm plus adapters; built from an existing norm, whose Parameters (dim,) it takes over.

    replacement    scale_norm, tt_layer_norm: the weight of the map; peft:LN_TUNING: the whole norm
    shift          bitfit: a vector (dim,) added to its output
    """

    norm_class: type[nn.Module]

    def __init__(self, norm: nn.Module) -> None:
        nn.Module.__init__(self)
        _adopt(self, norm)
        self.has_own_bias = "bias" in self._parameters
        if not self.has_own_bias:
            self.register_parameter("bias", None)
        self.replacement = nn.ModuleDict()
        self.shift = nn.ModuleDict()
        self.train(norm.training)

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty_host, (self.norm_class,), vars(self)  # the class has no name by which a copy could find it

    def plain(self) -> nn.Module:
        return plain_norm(self)

    @classmethod
    def host_of(cls, base: nn.Module) -> "AdaptedLayerNorm":
        return host_class(type(base))(base)

    @classmethod
    def base_at(cls, model: nn.Module, path: str, config: Any) -> nn.Module:
        base = super().base_at(model, path, config)
        if not isinstance(base, cls) and not is_norm(base):
            given = f"a {type(base).__name__} at {path}"
            config.refuse("kind", "adapts layer norms with a weight", given, "leave its sublayer out")
        return base

    @classmethod
    def _build(cls, base: nn.Module, weight: Tensor, config: Any, place: Place) -> nn.Module:
        if place.slot == "replacement":
            if not isinstance(base, cls) and not computes_as_its_class(base):
                given = f"a {type(base).__name__} at {place.path}, which computes something else"
                config.refuse("kind", "replaces norms w x / rms(x) or w (x - mean) / std + b", given, "leave it out")
            return config.build(weight + offset(norm_class_of(base)), epsilon(base))
        return config.build_at(place, len(weight), len(weight))

    def initialize_adapter(self, adapter: nn.Module) -> None:
        if any(adapter in controller.tasks.values() for controller in self.shift.values()):
            adapter.reset_parameters()
        else:
            adapter.start_from(self.base_tensor("weight") + offset(self.norm_class))

    def active_adapter(self) -> nn.Module | None:
        """The adapter that acts in place of the base's norm or of its weight, or None."""
        return next((c.active for c in self.replacement.values() if c.active is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        adapter = None if self.is_merged else self.active_adapter()
        y = self.norm_class.forward(self, x) if adapter is None else self._replaced(adapter, x)
        if self.is_merged:
            return y if self.has_own_bias or self.bias is None else y + self.bias
        for controller in self.shift.values():
            if controller.active is not None:
                y = y + controller(x).to(y.dtype)  # (..., dim) + (dim,)
        return y

    def _replaced(self, adapter: nn.Module, x: Tensor) -> Tensor:
        if getattr(adapter, "is_whole_norm", False):
            y = adapter(x)
        else:
            y = adapter(centred(self.norm_class, x))
            y = y if self.bias is None else y + self.bias  # (..., dim) + (dim,)
        # x may be float32 in a half-precision T5, as transformers keeps its wo there
        half = self.weight.dtype in (torch.float16, torch.bfloat16)
        return y.to(self.weight.dtype if half else x.dtype)

    @torch.no_grad()
    def merged_weights(self) -> dict[str, Tensor]:
        """The weight (dim,) and the bias (dim,) that compute the same; those that do not change are left out."""
        weight, bias, adapter, merged = self.base_tensor("weight"), self.base_tensor("bias"), self.active_adapter(), {}
        if adapter is not None:
            is_whole = getattr(adapter, "is_whole_norm", False)
            merged["weight"] = adapter.dense_weight() - (0 if is_whole else offset(self.norm_class))
            if bias is not None and is_whole:
                merged["bias"] = bias = adapter.dense_bias()
        shifts = [c.active.delta_bias() for c in self.shift.values() if c.active is not None]
        if shifts:
            total = torch.stack(shifts).sum(0)
            merged["bias"] = total if bias is None else bias.to(total.dtype) + total
        return {name: tensor.to(weight.dtype).contiguous() for name, tensor in merged.items()}


def plain_norm(norm: nn.Module) -> nn.Module:
    """A module of the base's own class with the Parameters of ``norm``, adapted or not."""
    norm_class = norm_class_of(norm)
    plain = norm_class.__new__(norm_class)
    nn.Module.__init__(plain)
    _adopt(plain, norm)
    if isinstance(norm, AdaptedLayerNorm):
        del plain.has_own_bias
        if not norm.has_own_bias:
            del plain._parameters["bias"]
    return plain


def norm_class_of(norm: nn.Module) -> type[nn.Module]:
    """The class of the base's norm, adapted or not."""
    return norm.norm_class if isinstance(norm, AdaptedLayerNorm) else type(norm)


@cache
def host_class(norm_class: type[nn.Module]) -> type[AdaptedLayerNorm]:
    """The class of adapted norms of one class of the base; it is a subclass of both."""
    return type(f"Adapted{norm_class.__name__}", (AdaptedLayerNorm, norm_class), {"norm_class": norm_class})


def _empty_host(norm_class: type[nn.Module]) -> AdaptedLayerNorm:
    cls = host_class(norm_class)
    return cls.__new__(cls)


def _adopt(new: nn.Module, old: nn.Module) -> None:
    """Give a new module the attributes and Parameters of another one, but not its modules and hooks."""
    for name, value in vars(old).items():
        if name not in vars(new) and name not in KEPT:
            vars(new)[name] = value
    for name, parameter in old._parameters.items():
        new.register_parameter(name, parameter)
