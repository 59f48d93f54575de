"""Our section in the README.md of a folder that PEFT saved: the method, its size, how to load it."""

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from adapters.saved.files import replace_file
from adapters.saved.folder import WEIGHTS_NAME, parameter_count
from adapters.saved.model_card import CARD_NAME, TUNER_END, TUNER_HEADING, TUNER_SECTION

DELTA = "tt_lora_delta."
"""Part of the names of all tensors of deltas."""
PEFT_FIELDS = {
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
}
"""Fields of every PEFT configuration, which do not describe the deltas."""


def extend_card(directory: Path, config: Any) -> None:
    """Write our section into the README.md of a folder, replacing an older one from its heading to its mark.

    Nothing is written if there is no README.md, or if the section in it lacks the mark: the user has edited it.
    """
    path = directory / CARD_NAME
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
    values = {field.name: getattr(config, field.name) for field in fields(config) if _is_listed(config, field)}
    values |= {"target_modules": config.target_modules}
    values.pop("rank", None)
    of_deltas = parameter_count(directory, DELTA)
    whole = parameter_count(directory) - of_deltas
    lines = [
        TUNER_HEADING,
        "",
        f"{of_deltas:,} parameters in tensor networks beside frozen linears, by the method TT_LORA of",
        "the Python package `adapters.peft`, which has to be imported before PEFT can load them.",
        *([f"{whole:,} more in whole modules (modules_to_save)."] if whole else []),
        "",
        f"- rank: `{config.rank}`",
        *(f"- {key}: `{sorted(value) if isinstance(value, set) else value}`" for key, value in values.items()),
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


def _is_listed(config: Any, field: Field) -> bool:
    """Return whether a field describes the deltas and differs from its default."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    value = getattr(config, field.name)
    is_default = list(value) == list(default) if isinstance(default, tuple) and value is not None else value == default
    return field.name not in PEFT_FIELDS and not is_default
