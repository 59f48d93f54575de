"""How PEFT comes to know the method."""

import ast
import copy
import pickle
from pathlib import Path

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from adapters.peft import TensorTrainConfig, TensorTrainModel, register

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ROOT = Path(__file__).resolve().parents[3]


class TestRegistration:
    @pytest.mark.parametrize("path", sorted((ROOT / "adapters").glob("*.py")), ids=lambda path: path.name)
    def test_importing_adapters_does_not_import_its_peft_package(self, path):
        imported = [
            name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        ]
        packages = {name.removeprefix("adapters.").partition(".")[0] for name in imported}
        assert "peft" not in packages

    @pytest.mark.parametrize(
        "member",
        [
            lambda: PeftType("TT_LORA"),
            lambda: PeftType["TT_LORA"],
            lambda: TensorTrainConfig().peft_type,
            lambda: copy.deepcopy(PeftType.TT_LORA),
            lambda: pickle.loads(pickle.dumps(PeftType.TT_LORA)),
            lambda: list(PeftType)[-1],
        ],
    )
    def test_new_member_behaves_like_the_others(self, member):
        assert member() is PeftType.TT_LORA
        assert isinstance(member(), PeftType)
        assert member().name == member().value == member() == "TT_LORA"

    def test_registering_twice_changes_nothing(self):
        before = list(PeftType), dict(PEFT_TYPE_TO_TUNER_MAPPING)
        register()
        assert (list(PeftType), dict(PEFT_TYPE_TO_TUNER_MAPPING)) == before
        assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.TT_LORA] is TensorTrainModel

    def test_foreign_method_of_that_name_is_not_overwritten(self, monkeypatch):
        monkeypatch.setitem(PEFT_TYPE_TO_TUNER_MAPPING, PeftType.TT_LORA, nn.Module)
        with pytest.raises(KeyError, match="tt_lora"):
            register()
