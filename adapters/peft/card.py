"""What a saved folder's README.md says of the adapter in it: the method, its size, and how it is loaded."""

import math
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open

from adapters.saved.checkpoint import WEIGHTS_NAME
from adapters.saved.files import replace_file
from adapters.saved.model_card import TUNER_END, TUNER_HEADING, TUNER_SECTION

FOREIGN = {"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"}
"""Fields of PEFT's that say nothing of the deltas."""


def extend_card(directory: Path, config: Any) -> None:
    """Write our section into the README.md of a folder, in the place of an older one, from its heading to its mark.

    Nothing is written where there is no README.md, or one whose section lacks the mark: it is somebody's own.
    """
    path = directory / "README.md"
    if not path.exists() or not (directory / WEIGHTS_NAME).exists():
        return
    text, section = path.read_text(encoding="utf-8"), _section(directory, config)
    if TUNER_SECTION.search(text):
        text = TUNER_SECTION.sub(lambda _: section, text, count=1)
    elif TUNER_HEADING in text.splitlines():
        return
    else:
        text = text.rstrip("\n") + "\n\n" + section
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _section(directory: Path, config: Any) -> str:
    said = {field.name: getattr(config, field.name) for field in fields(config) if _is_said(config, field)}
    said["target_modules"] = config.target_modules
    listed = [f"- {key}: `{sorted(value) if isinstance(value, set) else value}`" for key, value in said.items()]
    lines = [
        TUNER_HEADING,
        "",
        f"{_count(directory):,} numbers in tensor networks beside frozen linears, by the method TT_LORA of the Python",
        "package `adapters.peft`, which has to be imported before PEFT can load them.",
        "",
        f"- rank: `{config.rank}`",
        *(line for line in listed if not line.startswith("- rank:")),
        "",
        "```python",
        "from peft import PeftModel",
        "",
        "import adapters.peft",
        "",
        "model = PeftModel.from_pretrained(base_model, folder)",
        "```",
        "",
        TUNER_END,
    ]
    return "\n".join(lines) + "\n"


def _is_said(config: Any, field: Field) -> bool:
    """Whether a field has another value than where nothing is said."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    value = getattr(config, field.name)
    same = list(value) == list(default) if isinstance(default, tuple) and value is not None else value == default
    return field.name not in FOREIGN and field.name != "inference_mode" and not same


def _count(directory: Path) -> int:
    with safe_open(directory / WEIGHTS_NAME, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
