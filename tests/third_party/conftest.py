"""Base checkpoints of the three forms of T5, written once by transformers itself."""

from pathlib import Path

import pytest
import torch

from tests.third_party import tiny


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Folders of the base checkpoints by form: relu, gated, mt5; and relu with dropout."""
    folder = tmp_path_factory.mktemp("bases")
    for form in tiny.FORMS:
        tiny.base_model(form).save_pretrained(folder / form)
    tiny.base_model("relu", dropout=0.2).save_pretrained(folder / "dropout")
    return {path.name: path for path in folder.iterdir()}
