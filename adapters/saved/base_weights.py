"""A sample of the frozen base weights in a saved adapter, to notice a base of the same architecture but other weights.

    adapter_config.json     "base_weights": {"tensors": 131, "sample": "..."}        256 values, 1.4 kB, or fewer

The values are taken at fixed positions of tensors that are evenly spaced among the frozen ones, as float32 in base64.
Tensors that a kind trains are saved themselves, so they may differ. The same base in another dtype counts as the same:

    float32, then float16 or bfloat16      equal after the cast
    float16 and bfloat16                   equal up to the rounding of both
"""

import base64
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base.linear_layers import is_dense
from adapters.freezing import adapter_parameters, model_parameters, weight_rules
from adapters.injection import attachments
from adapters.sharded import local, whole

logger = logging.getLogger(__name__)

KEY = "base_weights"
"""The entry of adapter_config.json."""
FILE = "base_weights.json"
"""The file of the sample in folders of the tuner, which PEFT writes and reads."""
SIZE = 256
"""The largest number of sampled values."""
ROUNDING = 2.0**-7
"""More than the rounding of a value to bfloat16 and to float16, relative to the value."""


def base_sample(model: nn.Module) -> dict[str, Any] | None:
    """The entry of adapter_config.json; None if all weights train, or are not there (on the meta device)."""
    return sample_of(_frozen_base(model))


def sample_of(tensors: list[Tensor]) -> dict[str, Any] | None:
    """The entry for these tensors; None if there are none, or if they are on the meta device."""
    if not tensors or any(tensor.is_meta for tensor in tensors):
        return None
    values = torch.cat([value.cpu() for value in _sampled(tensors)])
    return {"tensors": len(tensors), "sample": base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()}


def warn_of_other_base(model: nn.Module, saved: Any, directory: Path) -> None:
    """Log a warning if the base of ``model``, which has its adapters, is not the one in the entry of a folder."""
    warn_of_other_tensors(_frozen_base(model), saved, directory)


def warn_of_other_tensors(tensors: list[Tensor], saved: Any, directory: Path) -> None:
    """Log a warning if these tensors are not those of an entry in a folder, up to casts."""
    here = sample_of(tensors)
    if here is None or not isinstance(saved, dict) or saved == here:
        return
    dtypes = [tensor.dtype for tensor in _chosen(tensors) for _ in _positions(tensor, here["tensors"])]
    then, now = (_values(entry) for entry in (saved, here))
    differing = len(now)
    if saved.get("tensors") == here["tensors"] and len(then) == len(now):
        differing = sum(not _is_same(a, b, dtype) for a, b, dtype in zip(then, now, dtypes, strict=True))
    if differing:
        logger.warning(
            "An adapter computes what it has learned only on the base that it was trained on; got a base with other "
            "weights than that of %s (%d of %d sampled values differ): load the base model it was trained on.",
            directory,
            differing,
            len(now),
        )


def differing_values(then: Any, now: Any) -> int:
    """How many values of two samples differ by more than casts; 0 if they are not samples of equally many tensors."""
    if not (isinstance(then, dict) and isinstance(now, dict)) or then.get("tensors") != now.get("tensors"):
        return 0
    first, second = _values(then), _values(now)
    if then == now or len(first) != len(second):
        return 0
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    return sum(not any(_is_same(a, b, dtype) for dtype in dtypes) for a, b in zip(first, second, strict=True))


def _frozen_base(model: nn.Module) -> list[Tensor]:
    """The base's parameters that no kind trains, unmerged, in the order of the model."""
    rules = weight_rules(model, [attachment.config for attachment in attachments(model)])
    trained = {name for name, (trains, _) in rules.items() if trains} | adapter_parameters(model).keys()
    state = model.state_dict()
    frozen = [state[name] for name in model_parameters(model) if name not in trained]
    return [tensor for tensor in frozen if is_dense(local(tensor)) and tensor.numel()]


def _chosen(tensors: list[Tensor]) -> list[Tensor]:
    count = min(len(tensors), SIZE)
    return [tensors[k * len(tensors) // count] for k in range(count)]


def _positions(tensor: Tensor, tensors: int) -> list[int]:
    """Evenly spaced positions in a flattened tensor."""
    count = min(max(1, SIZE // tensors), tensor.numel())
    return [(2 * k + 1) * tensor.numel() // (2 * count) for k in range(count)]


def _sampled(tensors: list[Tensor]) -> list[Tensor]:
    return [
        torch.take(whole(tensor), torch.tensor(_positions(tensor, len(tensors)), device=tensor.device)).float()
        for tensor in _chosen(tensors)
    ]


def _values(entry: dict[str, Any]) -> Tensor:
    try:
        return torch.frombuffer(bytearray(base64.b64decode(entry["sample"])), dtype=torch.float32)
    except (KeyError, TypeError, ValueError):
        return torch.empty(0)


def _is_same(then: Tensor, now: Tensor, dtype: torch.dtype) -> bool:
    """Whether two values (), in float32, are casts of one value: ``now`` to ``dtype``, and ``then`` to any."""
    if then.to(dtype).float() == now or any(now.to(d).float() == then for d in (torch.float16, torch.bfloat16)):
        return True
    halves = {torch.float16: torch.bfloat16, torch.bfloat16: torch.float16}
    was_cast = dtype in halves and then.to(halves[dtype]).float() == then
    return was_cast and torch.isclose(then, now, rtol=ROUNDING, atol=1e-7).item()
