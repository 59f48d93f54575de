"""The coefficients of the cost model for a device: those that are shipped, or those that were measured here.

`python -m t3nsor.calibrate` measures them, once for each GPU, and for each number of threads on a CPU. Until then the
shipped ones are used, and a plan depends on nothing but sizes and code: what a run takes, it takes again when it is
resumed. The file is `$T3NSOR_CACHE/devices.json`, by default in `~/.cache/t3nsor`.
"""

import json
import os
import tempfile
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from .work import Device

SHIPPED = {
    ("cpu", torch.float32): Device(
        flops=2.7e11, half=20.0, bandwidth=6.0e10, copying=2.0e10, paging=3.2e9, launch=3.4e-6
    ),
    ("cpu", torch.bfloat16): Device(
        flops=1.5e12, half=32.0, bandwidth=2.2e10, copying=1.4e10, paging=3.1e9, launch=3.4e-6
    ),
    ("cuda", torch.float32): Device(
        flops=5.0e13, half=24.0, bandwidth=2.0e12, copying=1.0e12, paging=1.0e15, launch=8.0e-6
    ),
    ("cuda", torch.bfloat16): Device(
        flops=5.0e14, half=64.0, bandwidth=2.0e12, copying=1.0e12, paging=1.0e15, launch=8.0e-6
    ),
}
"""By type of device and dtype: those of the CPU were measured on two cores of an Intel Xeon with AMX, see
docs/performance.md; those of CUDA are of the order of what is published for an H100, and not measured."""


def coefficients(device_type: str, dtype: torch.dtype) -> Device:
    """The coefficients for products in a dtype; one that is not known counts as bfloat16 or float32, by its size."""
    return _coefficients(device_type, device_name(device_type), dtype, os.environ.get("T3NSOR_CACHE"))


@lru_cache
def _coefficients(device_type: str, name: str, dtype: torch.dtype, folder: str | None) -> Device:
    known = {**SHIPPED, **_measured(_file_in(folder), name)}
    wide = dtype if (device_type, dtype) in known else torch.float32 if dtype.itemsize >= 4 else torch.bfloat16
    return known.get((device_type, wide), known["cuda" if device_type not in ("cpu", "meta") else "cpu", wide])


def device_name(device_type: str) -> str:
    """What coefficients are measured for: a GPU by its name, a CPU by its instructions and the number of threads."""
    if device_type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if device_type in ("cpu", "meta"):
        return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return device_type


def cache_file() -> Path:
    """Where measured coefficients are kept."""
    return _file_in(os.environ.get("T3NSOR_CACHE"))


def _file_in(folder: str | None) -> Path:
    return Path(folder or Path.home() / ".cache" / "t3nsor") / "devices.json"


def _measured(path: Path, name: str) -> dict[tuple[str, torch.dtype], Device]:
    """The coefficients of a device in a file; none where there is no such file or it holds something else."""
    try:
        rows = [row for row in _rows(path) if row.pop("name") == name]
        return {(row.pop("device"), getattr(torch, row.pop("dtype"))): Device(**row) for row in rows}
    except (TypeError, KeyError, AttributeError):
        return {}


def _rows(path: Path) -> list[dict]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict) and "name" in row] if isinstance(rows, list) else []


def save(measured: dict[tuple[str, torch.dtype], Device]) -> Path:
    """Add coefficients of this machine's devices to the file, whole or not at all, and return its path."""
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [{"device": d, "name": device_name(d), "dtype": str(t).removeprefix("torch.")} for d, t in measured]
    others = [row for row in _rows(path) if {name: row.get(name) for name in ("device", "name", "dtype")} not in keys]
    rows = [*others, *({**key, **asdict(c)} for key, c in zip(keys, measured.values(), strict=True))]
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(rows, file, indent=2)
    os.replace(file.name, path)
    _coefficients.cache_clear()
    return path
