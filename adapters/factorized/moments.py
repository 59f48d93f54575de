"""The second moments of the inputs of linears, C = E[x x^T] (in, in), from batches of tokens.

    |(W - V) X|^2 / |W X|^2 = tr((W - V) C (W - V)^T) / tr(W C W^T)        the error of V (out, in) in place of W

Products are computed and summed in float64, batch by batch; padding (attention_mask 0) does not count.
"""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.factorized.layers import FactorizedEmbedding, sizes, token_embedding
from adapters.progress import progress
from adapters.validation import ConfigurationError

RIDGE = 1e-6
"""What is added to the diagonal of a singular C, relative to its mean."""
SINGULAR = 1e-9
"""C counts as singular if the smallest pivot of its Cholesky factorization is below this share of its mean diagonal."""


@dataclass
class Moments:
    """The second moments (in, in) of the inputs of one linear, float64, and the tokens that they are from.

    The inputs of an embedding are one-hot vectors, so of its moments only the diagonal (tokens,) is held: the counts.
    """

    total: Tensor
    tokens: int = 0

    def add(self, x: Tensor) -> None:
        """Add rows x (tokens, in)."""
        x = x.double()
        self.total += x.T @ x  # (in, tokens) x (tokens, in)
        self.tokens += len(x)

    @property
    def mean(self) -> Tensor:
        """C (in, in)."""
        return self.total / self.tokens


def output_error(weights: list[Tensor], others: list[Tensor], moments: list[Moments]) -> float:
    """The error of ``others``, (out, in) each, in place of ``weights``, all float64, see the head of this file."""
    parts = list(zip(weights, others, (found.mean for found in moments), strict=True))
    lost = sum(energy(weight - other, mean) for weight, other, mean in parts)
    return (lost / sum(energy(weight, mean) for weight, _, mean in parts)).clamp(min=0).sqrt().item()


def energy(matrix: Tensor, moments: Tensor) -> Tensor:
    """tr(M C M^T) for a matrix M (out, in) and moments C (in, in), float64."""
    return ((matrix @ moments) * matrix).sum()  # (out, in) x (in, in)


def collect_moments(model: nn.Module, paths: Iterable[str], batches: Iterable[Any]) -> dict[str, Moments]:
    """The second moments of the inputs of these linears or embeddings by path; errors as for ``input_moments``."""
    if isinstance(batches, Tensor | Mapping):
        given = f"tensor {tuple(batches.shape)}" if isinstance(batches, Tensor) else type(batches).__name__
        raise ConfigurationError(f"A calibration is a list of batches; got one {given}: put it into a list.")
    moments: dict[str, Moments] = {}
    mask: Tensor | None = None

    def add(path: str, x: Tensor) -> None:
        if mask is not None and mask.shape == x.shape[: mask.dim()]:
            x = x[mask.to(x.device).bool()]
        elif mask is not None and x.dim() == 2 and len(x) == mask.numel():  # (batch * length, in), as in OPT
            x = x[mask.to(x.device).bool().reshape(-1)]
        module = model.get_submodule(path)
        if isinstance(module, nn.Embedding):
            counts = torch.bincount(x.reshape(-1), minlength=module.num_embeddings).double()
            before = moments[path] if path in moments else Moments(torch.zeros_like(counts))
            moments[path] = Moments(before.total + counts, before.tokens + x.numel())
            return
        if path not in moments:
            moments[path] = Moments(torch.zeros(x.shape[-1:] * 2, dtype=torch.float64, device=x.device))
        moments[path].add(x.reshape(-1, x.shape[-1]))

    hooks = [
        model.get_submodule(path).register_forward_pre_hook(lambda _, args, path=path: add(path, args[0].detach()))
        for path in paths
    ]
    try:
        with evaluating(model):
            for batch in progress(batches, "calibrate"):
                mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
                forward(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    check_moments(moments, paths)
    return moments


def forward(model: nn.Module, batch: Any) -> Any:
    """The output of the model for one batch, without a cache."""
    device = next(model.parameters()).device
    check_ids(model, batch.get("input_ids") if isinstance(batch, Mapping) else batch)
    if isinstance(batch, Tensor):
        arguments, options = (batch.to(device),), {}
    elif isinstance(batch, Mapping):
        arguments = ()
        options = {key: value.to(device) for key, value in batch.items() if key != "labels"}
    else:
        raise ConfigurationError(
            f"A calibration is batches of token ids; got a {type(batch).__name__} in it: pass tensors of ids, or "
            "mappings of keyword arguments of the model."
        )
    if "use_cache" in inspect.signature(model.forward).parameters:
        options["use_cache"] = False
    return model(*arguments, **options)


def check_ids(model: nn.Module, ids: Any) -> None:
    """Refuse ids that a model of transformers with an embedding of tokens cannot look up."""
    inner = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), model)
    embedding = token_embedding(inner)
    if not isinstance(ids, Tensor) or not isinstance(embedding, nn.Embedding | FactorizedEmbedding):
        return
    if ids.dim() < 2 or ids.is_floating_point():
        raise ConfigurationError(
            f"A calibration has integer ids (batch, length); got {ids.dtype} {tuple(ids.shape)}: reshape or convert it."
        )
    count = sizes(embedding)[1]
    outside = ids[(ids < 0) | (ids >= count)]
    if len(outside):
        raise ConfigurationError(
            f"A calibration has ids that the model knows, 0 to {count - 1}; got {outside[0].item()}: use the model's "
            "tokenizer."
        )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode is put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def is_moments(calibration: Any) -> bool:
    """Whether a calibration is what ``input_moments`` returns, rather than batches."""
    return isinstance(calibration, dict) and all(isinstance(value, Moments) for value in calibration.values())


def check_moments(moments: dict[str, Moments], paths: Iterable[str]) -> None:
    """Check that each of these linears has had inputs, all finite and not all zero."""
    for path in paths:
        if path not in moments or not moments[path].tokens:
            given, fix = f"none that reaches {path}", "pass batches of token ids, or leave that linear out"
        elif not moments[path].total.isfinite().all():
            given, fix = f"a NaN or an infinity at {path}", "load intact weights, or calibrate in float32"
        elif not moments[path].total.any():
            given, fix = f"only zeros at {path}", "pass other text, or leave that linear out"
        else:
            continue
        raise ConfigurationError(f"A calibration gives each linear finite inputs; got {given}: {fix}.")


def cholesky(moments: Tensor) -> Tensor:
    """L (n, n), lower triangular, with L L^T = C for second moments C (n, n), or C with a ridge if it is singular."""
    scale = moments.diagonal().mean()
    factor, failed = torch.linalg.cholesky_ex(moments)
    if failed or factor.diagonal().square().min() < SINGULAR * scale:
        ridge = RIDGE * scale * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
        factor = torch.linalg.cholesky(moments + ridge)
    return factor
