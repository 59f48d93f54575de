"""Our section in the README.md of a folder that PEFT saved: how to load the adapter first, then what it is.

PEFT's own card, unedited     its template of empty headings makes way: front matter, our section, versions
a card that somebody wrote    our section comes first, and nothing else changes
our section, saved again      is replaced where it is, unless somebody has edited it (its mark is gone)
"""

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from adapters.peft.task_types import AUTO_OF_TASK
from adapters.saved.files import replace_file
from adapters.saved.folder import WEIGHTS_NAME, parameter_count, read_config
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
FRONT_MATTER = re.compile(r"\A---\n.*?^---\n+", re.MULTILINE | re.DOTALL)


def extend_card(directory: Path, config: Any) -> None:
    """Write our section into the README.md of a folder; see above.

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
        front = match[0] if (match := FRONT_MATTER.match(text)) else ""
        text = front + section + "\n" + _without_template(text[len(front) :])
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _without_template(text: str) -> str:
    """A card's text without huggingface_hub's template, if nobody has filled it in."""
    template = ModelCard.from_template(ModelCardData()).text.strip("\n")
    return text.strip("\n").removeprefix(template).lstrip("\n")


def _section(directory: Path, config: Any) -> str:
    values = {field.name: getattr(config, field.name) for field in fields(config) if _is_listed(config, field)}
    values |= {"target_modules": config.target_modules}
    values.pop("rank", None)
    of_deltas = parameter_count(directory, DELTA)
    whole = parameter_count(directory) - of_deltas
    lines = [
        TUNER_HEADING,
        "",
        "```python",
        "import adapters.peft  # lets PEFT load it: the package tensorized-adapters",
        "from peft import PeftModel",
        *_base(directory, config),
        "model = PeftModel.from_pretrained(base, folder)",
        "```",
        "",
        "Without that package PEFT stops with `KeyError: 'TT_LORA'`: install it from its folder by",
        *_installation(config, whole),
        "",
        f"{of_deltas:,} parameters in tensor networks beside frozen weights."
        + (f" {whole:,} more in whole modules (modules_to_save)." if whole else ""),
        "",
        f"- rank: `{config.rank}`",
        *(f"- {key}: `{sorted(value) if isinstance(value, set) else value}`" for key, value in values.items()),
        "",
        TUNER_END,
    ]
    return "\n".join(lines) + "\n"


def _installation(config: Any, whole: int) -> list[str]:
    """The end of the sentence about a missing package; without the export if ``adapters.peft.to_lora`` refuses it."""
    if whole or config.core_activation or config.target_parameters or config.delta_bias != "none":
        return ["`pip install '.[peft]'`."]
    return [
        "`pip install '.[peft]'`, or ask for a LoRA folder, which needs nothing else:",
        "`python -m adapters.peft.to_lora FOLDER LORA`.",
    ]


def _base(directory: Path, config: Any) -> list[str]:
    """The lines that load the base model; without its name, or a class of transformers, its place is left open."""
    name, noted = config.base_model_name_or_path, read_config(directory).get("auto_mapping") or {}
    loader = AUTO_OF_TASK.get(config.task_type)
    if loader is None and noted.get("parent_library", "").startswith("transformers."):
        loader = noted["base_model_class"]
    if not name or not loader:
        return ["", "base = ...  # the model that it was trained on"]
    return [f"from transformers import {loader}", "", f'base = {loader}.from_pretrained("{name}")']


def _is_listed(config: Any, field: Field) -> bool:
    """Return whether a field describes the deltas and differs from its default."""
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    value = getattr(config, field.name)
    is_default = list(value) == list(default) if isinstance(default, tuple) and value is not None else value == default
    return field.name not in PEFT_FIELDS and not is_default
