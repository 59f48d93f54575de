"""The README.md of a saved adapter: a model card of huggingface_hub, made from the contents of the folder.

    front matter    library_name, tags, and base_model if the base is known to come from the hub
    text            kinds, parameter count, how to load

The card ends with a mark. A README.md without the mark was written or edited by the user, and is never changed.
"""

import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError
from torch import nn

from adapters.injection import attachments
from adapters.saved.architecture import NUM_LABELS, architecture_of_model, auto_class, model_class
from adapters.saved.files import replace_file
from adapters.summary import summary

CARD_NAME = "README.md"
TUNER_HEADING = "## Tensor-train adapter"
TUNER_END = "<!-- Written by adapters.peft, from the heading on. Without this line it is left as it is. -->"
MARK = "<!-- Written by adapters.save. Without this line it is left as it is. -->"
TUNER_SECTION = re.compile(rf"^{TUNER_HEADING}\n.*?^{re.escape(TUNER_END)}\n?", re.MULTILINE | re.DOTALL)


def write_model_card(model: nn.Module, directory: Path, parameters: int) -> None:
    """Write the card into ``directory``, unless the README.md there has no mark.

    Args:
        model: the saved model.
        directory: the folder.
        parameters: their number in the folder.
    """
    path = directory / CARD_NAME
    if not path.exists() or _has_mark(path):
        replace_file(path, model_card(model, parameters).save)


def remove_model_card(directory: Path) -> None:
    """Remove a card with the mark, or our section of PEFT's card: neither describes the tensors written next."""
    path = directory / CARD_NAME
    if path.exists() and _has_mark(path):
        path.unlink()
    elif path.exists() and TUNER_SECTION.search(text := path.read_text(encoding="utf-8", errors="replace")):
        rest = without_tuner_section(text) + "\n"
        replace_file(path, lambda partial: partial.write_text(rest, encoding="utf-8"))


def without_tuner_section(text: str) -> str:
    """Return a card without the section of our tuner, from its heading to its mark."""
    return re.sub(TUNER_SECTION.pattern + r"\n*", "", text, flags=TUNER_SECTION.flags).rstrip("\n")


def model_card(model: nn.Module, parameters: int) -> ModelCard:
    """Return the card: equal for equal adapters of equal bases."""
    base = _hub_name(model)
    data = ModelCardData(library_name="tensorized-adapters", base_model=base, tags=["tensorized-adapters"])
    base_parameters = summary(model).base.parameters
    kinds = [f"- {a.config.kind}" + (f", for the task {a.task}" if a.task else "") for a in attachments(model)]
    imported, loaded = _loading(model, base)
    share = f"{parameters / base_parameters:.4%}"
    return ModelCard(
        "\n".join(
            [
                f"---\n{data.to_yaml()}\n---\n",
                f"# An adapter of {base or 'a ' + type(model).__name__}\n",
                f"Parameters: {parameters:,}, {share} of the {base_parameters:,} parameters of the base model.\n",
                *kinds,
                f"\n```python\n{imported}import adapters\nmodel = adapters.load({loaded}, directory)\n```\n",
                f"All fields of the kinds are in `adapter_config.json`.\n\n{MARK}\n",
            ]
        )
    )


def _has_mark(path: Path) -> bool:
    return path.read_text(encoding="utf-8", errors="replace").rstrip().endswith(MARK)


def _loading(model: nn.Module, base: str | None) -> tuple[str, str]:
    """Return the import and the expression that load the base from the hub; the name ``base`` for one from elsewhere.

    The class is the Auto class that gives that of the model, with the size of the head if it is saved.
    """
    if base is None:
        return "", "base"
    architecture = architecture_of_model(model)
    known = model_class(architecture).__name__
    name = auto_class(architecture["model_type"], known) or known
    labels = f", {NUM_LABELS}={architecture[NUM_LABELS]}" if NUM_LABELS in architecture else ""
    return f"from transformers import {name}\n\n", f'{name}.from_pretrained("{base}"{labels})'


def _hub_name(model: nn.Module) -> str | None:
    """Return the name of the base on the hub if it is in this machine's cache: another name may be a local folder."""
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return name if isinstance(cached, str) and not Path(name).exists() else None
