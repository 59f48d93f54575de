"""The coefficients of the cost model for a device: the defaults, or those measured on this machine.

`python -m t3nsor.calibrate` measures them, once for each GPU, and for each number of threads on a CPU. Until then the
defaults are used, and a plan depends only on sizes and code, so that a resumed run uses the same plans. Measurements
are saved in `$T3NSOR_CACHE/devices.json`, by default in `~/.cache/t3nsor`.
"""

import json
import os
import tempfile
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from .work import Device

DEFAULTS = {
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
"""The defaults by device type and dtype. Those of the CPU were measured on two cores of an Intel Xeon with AMX, see
docs/performance.md; those of CUDA are not measured, but of the order of the published figures of an H100."""


def coefficients(device_type: str, dtype: torch.dtype) -> Device:
    """Return the coefficients for products in a dtype; others are treated as bfloat16 or float32, by their size."""
    return _coefficients(device_type, device_name(device_type), dtype, os.environ.get("T3NSOR_CACHE"))


@lru_cache
def _coefficients(device_type: str, name: str, dtype: torch.dtype, folder: str | None) -> Device:
    known = {**DEFAULTS, **_measured(_file_in(folder), name)}
    wide = dtype if (device_type, dtype) in known else torch.float32 if dtype.itemsize >= 4 else torch.bfloat16
    return known.get((device_type, wide), known["cuda" if device_type not in ("cpu", "meta") else "cpu", wide])


def device_name(device_type: str) -> str:
    """Return the key of a measurement: a GPU's name, or a CPU's instruction set and number of threads."""
    if device_type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if device_type in ("cpu", "meta"):
        return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return device_type


def cache_file() -> Path:
    """Return the path of the file of measured coefficients."""
    return _file_in(os.environ.get("T3NSOR_CACHE"))


def _file_in(folder: str | None) -> Path:
    return Path(folder or Path.home() / ".cache" / "t3nsor") / "devices.json"


def _measured(path: Path, name: str) -> dict[tuple[str, torch.dtype], Device]:
    """Return the coefficients of a device in a file; empty if the file is missing or malformed."""
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
    """Add coefficients of this machine's devices to the file, atomically, and return its path."""
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
