"""The README.md of a saved adapter: a model card of huggingface_hub, made of what the folder holds alone.

    front matter    library_name, tags, and base_model where the base certainly came from the hub
    text            kinds, how many numbers, how to load

The card ends with a mark. A README.md without it is somebody's own and is left as it is.
"""

import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError
from torch import nn

from adapters.injection import attachments
from adapters.saved.files import replace_file
from adapters.summary import summary

CARD_NAME = "README.md"
TUNER_HEADING = "## Tensor-train adapter"
TUNER_END = "<!-- Written by adapters.peft, from the heading on. Without this line it is left as it is. -->"
MARK = "<!-- Written by adapters.save. Without this line it is left as it is. -->"
TUNER_SECTION = re.compile(rf"^{TUNER_HEADING}\n.*?^{re.escape(TUNER_END)}\n?", re.MULTILINE | re.DOTALL)


def write_model_card(model: nn.Module, directory: Path, numbers: int) -> None:
    """Write the card of so many numbers into ``directory``, or leave a README.md there that has no mark."""
    path = directory / CARD_NAME
    if not path.exists() or _has_mark(path):
        replace_file(path, model_card(model, numbers).save)


def remove_model_card(directory: Path) -> None:
    """Remove a card with the mark, or our section of one of PEFT: it is not about what is written there now."""
    path = directory / CARD_NAME
    if path.exists() and _has_mark(path):
        path.unlink()
    elif path.exists() and TUNER_SECTION.search(text := path.read_text(encoding="utf-8", errors="replace")):
        rest = without_tuner_section(text) + "\n"
        replace_file(path, lambda partial: partial.write_text(rest, encoding="utf-8"))


def without_tuner_section(text: str) -> str:
    """A card without the section that our tuner writes into those of PEFT, from its heading to its mark."""
    return re.sub(TUNER_SECTION.pattern + r"\n*", "", text, flags=TUNER_SECTION.flags).rstrip("\n")


def model_card(model: nn.Module, numbers: int) -> ModelCard:
    """The card: equal adapters of equal bases have equal ones."""
    base = _hub_name(model)
    data = ModelCardData(library_name="tensorized-adapters", base_model=base, tags=["tensorized-adapters"])
    of_base = summary(model).base.parameters
    kinds = [f"- {a.config.kind}" + (f", for the task {a.task}" if a.task else "") for a in attachments(model)]
    loaded = "base" if base is None else f'{type(model).__name__}.from_pretrained("{base}")'
    return ModelCard(
        "\n".join(
            [
                f"---\n{data.to_yaml()}\n---\n",
                f"# An adapter of {base or 'a ' + type(model).__name__}\n",
                f"Numbers here: {numbers:,}, beside {of_base:,} of the base model ({numbers / of_base:.4%}).\n",
                *kinds,
                f"\n```python\nimport adapters\nmodel = adapters.load({loaded}, directory)\n```\n",
                f"`adapter_config.json` has every field of the kinds.\n\n{MARK}\n",
            ]
        )
    )


def _has_mark(path: Path) -> bool:
    return path.read_text(encoding="utf-8", errors="replace").rstrip().endswith(MARK)


def _hub_name(model: nn.Module) -> str | None:
    """Where the base came from, if this machine has it from the hub: any other name may be that of a folder."""
    name = getattr(model.config, "_name_or_path", "")
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return name if isinstance(cached, str) and not Path(name).exists() else None
