"""loop: a pretrained language model as a few blocks that run several times, with a delta for each depth.

    model = AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M")
    loop(model, n_layer=5, deltas={"rank": 16})        30 layers as 5 blocks that run 6 times, in place
    print(model.loop_report)                           what the deltas keep
    model.save_pretrained("looped")                    AutoModelForCausalLM.from_pretrained reads it again, after
                                                       import third_party.models.looped

    W     = mean of W_l over the depths l that share it, or W_l of one loop
    T_l   = TT-SVD of W_l - W (Oseledets 2011, algorithm 1), or its SVD (Bae et al. 2024, arXiv:2410.20672)

Norms and biases stay those of each depth, embeddings and head those of the model. So at full rank the looped model
computes what the pretrained one does. Each depth is a module of its own, in the original class: ``generate`` has a
cache, and training, evaluation and saving are those of transformers. All parameters train; for the deltas alone attach
``{"kind": "weights", "target_parameters": ".*\\.delta\\..*"}``.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapters.base.linear_layers import as_out_in
from adapters.tables import render_table
from adapters.validation import refuse
from third_party.models.looped.depth_deltas import WHERE, DepthDeltas, as_deltas, groups_of, share_weights
from third_party.models.looped.folders import check_dense, note_loops
from third_party.models.looped.shared_linear import SharedLinear


@dataclass(frozen=True)
class LoopedLinear:
    """What became of one linear at one depth; energies are squared Frobenius norms.

    Args:
        path: of the linear.
        weight: the energy of W_l.
        residual: that of W_l - W.
        error: that of W_l - W - T_l.
        parameters: of T_l.
    """

    path: str
    weight: float
    residual: float
    error: float
    parameters: int


@dataclass(frozen=True)
class LoopReport:
    """The linears of a looped model, and the parameters of its weights before and after; ``str`` gives a table."""

    linears: tuple[LoopedLinear, ...]
    parameters_before: int
    parameters_after: int

    @property
    def kept(self) -> float:
        """The share of the residuals' energy that the deltas keep; 1 if there is none."""
        return _kept(self.linears)

    @property
    def error(self) -> float:
        """The energy of all errors as a share of that of all weights."""
        return sum(row.error for row in self.linears) / sum(row.weight for row in self.linears)

    def __str__(self) -> str:
        by_name: dict[str, list[LoopedLinear]] = {}
        for row in self.linears:
            by_name.setdefault(".".join(row.path.split(".")[-2:]), []).append(row)
        header = ["linears", "energy of the residuals", "kept by the deltas", "parameters of the deltas"]
        rows = [
            [
                name,
                f"{sum(row.residual for row in found) / sum(row.weight for row in found):.3f}",
                f"{_kept(found):.3f}",
                f"{sum(row.parameters for row in found):,}",
            ]
            for name, found in by_name.items()
        ]
        title = f"Shared weights: {self.parameters_after:,} of {self.parameters_before:,} parameters"
        return render_table(title, header, rows)


def loop(
    model: PreTrainedModel,
    n_layer: int = 1,
    deltas: DepthDeltas | dict[str, Any] | None = None,
    shared: Literal["mean"] | int = "mean",
) -> PreTrainedModel:
    """Let the layers of a pretrained model share the weights of ``n_layer`` blocks, in place, and return the model.

    Args:
        model: a decoder of transformers with N equal layers, such as GPT-2 or Llama.
        n_layer: blocks that are left; they run N / n_layer times.
        deltas: a ``DepthDeltas`` or its JSON form, such as {"rank": 16} or {"format": "low_rank", "rank": 16}; None for
            layers that differ in norms and biases only.
        shared: the shared weight: the mean over the loops, or that of one loop by its number.

    Returns:
        The model, with the energies that its deltas keep as ``model.loop_report``.

    Raises:
        ConfigurationError: the model does not have N equal layers of plain linears, n_layer does not divide N, or a
            value is unknown. The model is unchanged.
    """
    deltas = as_deltas(deltas)
    groups = groups_of(model, n_layer)
    check_dense(model)
    loops = len(groups[0])
    if shared != "mean" and (type(shared) is not int or not 0 <= shared < loops):
        refuse("shared", f'is "mean" or the number of a loop below {loops}', repr(shared), "choose one of them", WHERE)
    dense = [torch.stack([_dense(model, path) for path in paths]) for paths in groups]  # (loops, out, in) each
    for paths, weights in zip(groups, dense, strict=True):
        if not weights.isfinite().all():
            refuse("model", "has finite weights", f"others at {paths[0]} or its other depths", "repair it first", WHERE)
    rows = []
    for group, weights in zip(share_weights(model, n_layer, deltas), dense, strict=True):
        _set_shared(next(iter(group.values())), weights.mean(0) if shared == "mean" else weights[shared])
        rows += [_start(path, linear, weight) for (path, linear), weight in zip(group.items(), weights, strict=True)]
    before = loops * sum(linear.numel() for linear in _owned(model))
    after = before // loops + sum(row.parameters for row in rows)
    model.loop_report = LoopReport(tuple(rows), before, after)
    note_loops(model, n_layer, deltas)
    return model


@torch.no_grad()
def _start(path: str, linear: SharedLinear, weight: Tensor) -> LoopedLinear:
    """Start the delta of one depth from its weight (out, in)."""
    residual = weight - linear.shared_weight().to(weight.dtype)
    error, parameters = residual, 0
    if linear.delta is not None:
        linear.delta.to(residual.dtype)
        if residual.any():  # else it stays zero, with a core that has a gradient
            linear.delta.set_weight(residual)
        linear.delta.to(linear.shared_weight().dtype)
        error = residual - linear.delta.full().to(residual.dtype)
        parameters = sum(core.numel() for core in linear.delta.parameters())
    weight_, residual_, error_ = (tensor.double().square().sum().item() for tensor in (weight, residual, error))
    return LoopedLinear(path, weight_, residual_, error_, parameters)


def _dense(model: PreTrainedModel, path: str) -> Tensor:
    """The weight (out, in) of a linear in float32 at least."""
    linear = model.get_submodule(path)
    weight = as_out_in(linear, linear.weight.detach())
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


@torch.no_grad()
def _set_shared(owner: SharedLinear, weight: Tensor) -> None:
    owner.weight.copy_(weight.T if owner.is_transposed else weight)


def _owned(model: PreTrainedModel) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, SharedLinear) and hasattr(m, "weight")]


def _kept(rows: Any) -> float:
    residual = sum(row.residual for row in rows)
    return 1.0 - sum(row.error for row in rows) / residual if residual else 1.0
