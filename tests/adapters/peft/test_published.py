"""Published settings as configurations of the tuner: trainable parameters against the closed forms."""

import pytest
from peft import PeftConfig, get_peft_model

import adapters
from adapters import ConfigurationError
from adapters.peft import TensorTrainConfig
from adapters.tensor_train.parameter_counts import Sizes
from adapters.tensor_train.published import PUBLISHED
from tests.adapters.peft.tiny import t5, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = Sizes(16, 16, layers=4, matrices=4, heads=2, linears=12)
"""q and v of the tiny T5: of 2 + 2 self-attentions and 2 cross-attentions."""
NEEDS_TASKS = "metatt_4d_tasks"


def setting(name: str, **others) -> dict:
    return adapters.published(name, None if name == "kronecker" else 3, SIZES, target_modules=["q", "v"], **others)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != NEEDS_TASKS])
def test_setting_has_the_parameters_of_the_closed_form(name):
    model = get_peft_model(t5(), TensorTrainConfig(**setting(name)))
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(parameters[name] for name in trainable(model)) == PUBLISHED[name].parameters(3, SIZES)


def test_setting_is_stored_without_its_kind(tmp_path):
    TensorTrainConfig(**setting("lora")).save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert (
        loaded.to_dict()
        == TensorTrainConfig(modes=["in", "out"], rank=3, scaling=1.0, target_modules=["q", "v"]).to_dict()
    )
    assert "kind" not in loaded.to_dict()


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (setting(NEEDS_TASKS), "Key 'modes' .* must not contain 'task' in PEFT"),
        (
            setting("lora", sublayers=["self_attention"]),
            "Key 'sublayers' of TensorTrainConfig is not supported .*target",
        ),
        (setting("lora", stacks=["encoder"]), "Key 'stacks' of TensorTrainConfig is not supported .*target_modules"),
        (setting("lora", layers=[0]), "Key 'layers' of TensorTrainConfig is not supported .*: use layers_to_transform"),
        (setting("tensor_basis", share_across=["tasks"]), "Key 'share_across' .* must not contain 'tasks' in PEFT"),
        ({"kind": "tt_single"}, "Key 'kind' of TensorTrainConfig must be 'tt_lora'.*got 'tt_single'"),
        ({"kind": "peft:LORA"}, "Key 'kind' of TensorTrainConfig .*got 'peft:LORA'"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_key_that_the_tuner_lacks_is_named(description, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        TensorTrainConfig(**description)


def test_keys_that_are_none_are_not_refused():
    assert TensorTrainConfig(kind="tt_lora", layers=None).to_dict() == TensorTrainConfig().to_dict()
