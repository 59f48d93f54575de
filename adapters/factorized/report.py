"""What a factorization keeps of each weight, before any training.

kept         1 - |W - V|^2 / |W|^2, Frobenius; V (out, in) is the network, W the weight
floor        what the decomposition at this shape keeps of a Gaussian matrix of the same size: as much kept energy
             says nothing about the weight
error        |(W - V) X| / |W X| for inputs X that no decision has seen
low rank     the same error of whitened low rank (SVD-LLM) with at most as many parameters: of several weights, in a
             stack or a shared basis, a decomposition for each, all of one rank
"""

import math
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.heads import output_projection
from adapters.factorized.layers import FactorizedEmbedding, NetworkSpec, token_embedding
from adapters.factorized.moments import Moments, output_error
from adapters.factorized.starts import dense
from adapters.factorized.targets import Target
from adapters.factorized.whitening import whitened_cores
from adapters.progress import progress
from adapters.tables import render_table
from t3nsor.even_decomposition import even_cores


@dataclass(frozen=True)
class WeightReport:
    """One weight: its network, the parameters of both, and the measures above; None where they cannot be computed."""

    path: str
    shape: str
    dense_parameters: int
    parameters: int
    kept: float | None
    floor: float
    error: float | None
    low_rank_error: float | None


@dataclass(frozen=True)
class FactorizationReport:
    """All weights that are replaced, and the parameters of the model.

    Args:
        weights: one entry for each.
        totals: parameters of the model before and after, by what is counted.
        tokens: that the whitening, and the errors, are from; 0 for none.
    """

    weights: tuple[WeightReport, ...]
    totals: dict[str, tuple[int, int]] = field(hash=False)
    calibration_tokens: int
    held_out_tokens: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        header = ["weight", "network", "parameters", "share", "kept", "floor", "error", "low rank"]
        rows = [
            [w.path, w.shape, f"{w.parameters:,}", f"{w.parameters / w.dense_parameters:.3f}"]
            + [_decimal(value) for value in (w.kept, w.floor, w.error, w.low_rank_error)]
            for w in self.weights
        ]
        totals = [
            [name, f"{before:,}", f"{after:,}", f"{after / before:.3f}"]
            for name, (before, after) in self.totals.items()
        ]
        lines = [
            render_table("Factorized weights", header, rows),
            render_table("Parameters", ["", "before", "after", "share"], totals),
            f"Tokens: {self.calibration_tokens:,} for the calibration, {self.held_out_tokens:,} held out.",
        ]
        return "\n\n".join(lines)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def report_of(
    model: nn.Module,
    started: list[tuple[Target, list[Tensor]]],
    calibration: dict[str, Moments],
    held_out: dict[str, Moments],
) -> FactorizationReport:
    """The report of networks that were started for a model with dense weights.

    Args:
        calibration, held_out: second moments by path, or nothing; whitened low rank needs both.
    """
    weights = []
    for target, cores in progress(started, "report"):
        seen, unseen = (target.inputs(found) for found in (calibration, held_out))
        weights.append(_of_weight(target, cores, seen, unseen))
    left_out = left_out_of_totals(model)
    totals = {}
    for name, before in parameter_totals(model).items():
        counted = [target for target, _ in started if id(target.like) not in left_out[name]]
        saved = sum(math.prod(target.size) - target.spec.parameters for target in counted)
        totals[name] = (before, before - saved)
    tokens = (next((moments.tokens for moments in found.values()), 0) for found in (calibration, held_out))
    return FactorizationReport(tuple(weights), totals, *tokens)


def _of_weight(
    target: Target, cores: list[Tensor], calibration: list[Moments], held_out: list[Moments]
) -> WeightReport:
    spec, (out_features, in_features) = target.spec, target.size
    kept = error = low_rank_error = None
    if not target.like.is_meta:
        weights = target.weights
        made = dense(spec, [core.double() for core in cores]).split([len(weight) for weight in weights])
        total = sum(weight.square().sum() for weight in weights)
        if total:
            lost = sum((weight - part).square().sum() for weight, part in zip(weights, made, strict=True))
            kept = 1 - (lost / total).item()
        if held_out and total:
            error = output_error(weights, made, held_out)
            rank = spec.parameters // (out_features + in_features * len(weights))
            if calibration and rank:
                parts = zip(weights, calibration, strict=True)
                separate = [whitened_low_rank(weight, moments.mean, rank) for weight, moments in parts]
                low_rank_error = output_error(weights, separate, held_out)
    floor = gaussian_floor(spec.format, tuple(spec.core_shapes))
    dense_parameters = out_features * in_features
    return WeightReport(target.name, str(spec), dense_parameters, spec.parameters, kept, floor, error, low_rank_error)


def whitened_low_rank(weight: Tensor, moments: Tensor, rank: int) -> Tensor:
    """The matrix of this rank with the least error for inputs of these moments (in, in)."""
    out_features, in_features = weight.shape
    ranks = (1, min(rank, *weight.shape), 1)
    spec = NetworkSpec("Linear", ((1, out_features), (in_features, 1)), ranks)
    return dense(spec, whitened_cores(weight, spec, moments, "full"))


@lru_cache(maxsize=256)
def gaussian_floor(format: str, core_shapes: tuple[tuple[int, int, int, int], ...]) -> float:
    """The energy that the decomposition at these shapes keeps of one Gaussian matrix, always the same."""
    _, rows, columns, _ = zip(*core_shapes, strict=True)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(torch.Size(rows).numel(), torch.Size(columns).numel(), generator=generator, device="cpu")
    spec = NetworkSpec("Linear", (rows, columns), (core_shapes[0][0], *(s[3] for s in core_shapes)), format)
    made = dense(spec, even_cores(matrix, core_shapes))
    return 1 - ((matrix - made).square().sum() / matrix.square().sum()).item()


def parameter_totals(model: nn.Module) -> dict[str, int]:
    """The parameters of a model: all, without embeddings of positions, and without any embedding or output projection.

    All embeddings but the one of the tokens count as positions, as far as a model names that one.
    """
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return {
        name: sum(size for key, size in sizes.items() if key not in left_out)
        for name, left_out in left_out_of_totals(model).items()
    }


def left_out_of_totals(model: nn.Module) -> dict[str, set[int]]:
    """The parameters, dense or of networks, that each of the totals does not count, by their ids."""
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding | FactorizedEmbedding)]
    embeddings = {id(parameter) for module in modules for parameter in module.parameters()}
    tokens = token_embedding(model)
    positions = set() if tokens is None else embeddings - {id(parameter) for parameter in tokens.parameters()}
    if path := output_projection(model):
        embeddings |= {id(p) for name, p in model.get_submodule(path).named_parameters() if name != "bias"}
    return {"all": set(), "without positions": positions, "without embeddings and positions": embeddings}
