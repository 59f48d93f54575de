"""Lossless merging: the base tensors are kept while merged ones take their place, and are put back unchanged.

    replace_base({"weight": W'})    the Parameters hold the merged tensors; W is kept, untouched
    restore_base()                  W is back, bit for bit, in any dtype, after any number of cycles

Subtracting the delta again would add a rounding error with each cycle. The checks for what cannot be merged are here
too, for models with attached adapters and for those of the PEFT tuner.
"""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

WITHOUT_ACTIVATION = (
    "evaluate it unmerged, or train an adapter without an activation, such as tt_lora with core_activation=None"
)


class MergeError(RuntimeError):
    """The adapters cannot be merged; the model is unchanged."""


class KeptBase(nn.Module):
    """Mixin for a module whose base has Parameters ``weight`` and, possibly, ``bias``."""

    _kept: dict[str, Tensor | None] | None = None

    def base_module(self) -> nn.Module:
        """The module that holds the Parameters."""
        return self

    @property
    def is_merged(self) -> bool:
        return self._kept is not None

    @property
    def acting(self) -> list[str]:
        """Names of the adapters that add to the base only if this module is called: active, and not merged."""
        raise NotImplementedError

    def base_tensor(self, name: str) -> Tensor | None:
        """The tensor of the base, merged or not; None for a missing bias."""
        if self._kept is not None and name in self._kept:
            return self._kept[name]
        parameter = getattr(self.base_module(), name)
        return None if parameter is None else parameter.data

    def replace_base(self, tensors: dict[str, Tensor | None]) -> None:
        """Let the Parameters hold ``tensors`` until ``restore_base``; a missing bias is created until then."""
        self.restore_base()
        self._kept = {name: self.base_tensor(name) for name in tensors}
        self._set(tensors)

    def restore_base(self) -> None:
        """Put the kept tensors back, if any."""
        if self._kept is not None:
            self._set(self._kept)
            self._kept = None

    def _set(self, tensors: dict[str, Tensor | None]) -> None:
        module = self.base_module()
        for name, tensor in tensors.items():
            parameter = getattr(module, name)
            if parameter is not None and tensor is not None:
                parameter.data = tensor
            else:
                setattr(module, name, None if tensor is None else nn.Parameter(tensor, requires_grad=False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        if self._kept is not None:
            self._kept = {name: None if tensor is None else fn(tensor) for name, tensor in self._kept.items()}
        return super()._apply(fn, recurse)


def is_finite(tensor: Tensor) -> bool:
    """Whether all entries are finite. Their sum shows it in one pass, unless finite entries overflow in the sum."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def check_finite(tensors: Iterable[Tensor | None], where: str) -> None:
    """Check the merged tensors at one place.

    Raises:
        MergeError: one has infinities or NaN.
    """
    if not all(tensor is None or is_finite(tensor) for tensor in tensors):
        raise MergeError(
            f"A merged weight is finite; got infinities or NaN {where}: training diverged or the delta overflows this "
            "dtype, so lower the learning rate or load the model in bfloat16."
        )


def check_linear_adapter(adapter: nn.Module, where: str) -> None:
    """Check that an adapter can be merged.

    Raises:
        MergeError: it is not linear.
    """
    if not adapter.is_linear:
        reason = getattr(adapter, "not_linear_because", "has an activation inside")
        fix = getattr(adapter, "instead_of_merging", WITHOUT_ACTIVATION)
        raise MergeError(f"Only linear adapters have a dense weight to merge; got {where}, which {reason}: {fix}.")


def check_untied(model: nn.Module, merged: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Check that no other module would get a merged weight too, because it holds the same Parameter.

    Args:
        model: the model with its adapters.
        merged: the path of each module, and its Parameter that a merge changes.

    Raises:
        MergeError: one is tied to that of another module.
    """
    names: dict[nn.Parameter, list[str]] = {}
    for path, module in model.named_modules():  # a module with several names counts once
        for name, parameter in module.named_parameters(path, recurse=False):
            names.setdefault(parameter, []).append(name)
    for path, parameter in merged:
        other = next((name for name in names.get(parameter, ()) if not name.startswith(f"{path}.")), None)
        if other is not None:
            raise MergeError(
                f"A merged weight belongs to one module alone; got that of {path}, which is tied to {other}: evaluate "
                "it unmerged, or untie the two before adapters are attached."
            )
