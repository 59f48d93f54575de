"""Reads the file of an offline run of wandb: records of its protocol in the framing of LevelDB's log.

header    7 bytes
blocks    32 KiB each; of records: checksum (4 bytes), length (2), part (1: whole, 2: first, 3: middle, 4: last), data
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32 * 1024, 7
WHOLE, FIRST, LAST = 1, 2, 4


def records(path: Path) -> Iterator[Record]:
    """The records of a .wandb file."""
    text, at, data = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(text):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, part = struct.unpack_from("<IHB", text, at)
        at += HEADER
        data = text[at : at + length] if part in (WHOLE, FIRST) else data + text[at : at + length]
        at += length
        if part in (WHOLE, LAST):
            yield Record.FromString(data)


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, an entry for each call, without wandb's own names."""
    entries = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            entries.append({key: value for key, value in items.items() if not key.startswith("_")})
    return entries


def run_of(path: Path) -> Any:
    """The run's record: id, name, group, tags, config."""
    return next(record.run for record in records(path) if record.WhichOneof("record_type") == "run")


def curve(entries: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """The points (step, value) of a scalar."""
    return [(entry["step"], entry[name]) for entry in entries if name in entry and "step" in entry]
