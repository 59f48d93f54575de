"""What deltas of expert weights do not fit, and what would miss them, is refused by name."""

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

import adapters
from adapters.algebra import Deltas
from adapters.peft import TensorTrainConfig, export_lora, from_peft
from adapters.saved.folder import CheckpointError
from adapters.validation import ConfigurationError
from tests.adapters.peft.test_experts import BOTH, DOWN, adapted, base, logits
from tests.adapters.peft.tiny import llama, scrambled

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own
EXPERT = ["in", "expert", "out"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_parameters": ["experts.gate_up"]}, "did you mean 'experts.gate_up_proj'"),
        ({"target_parameters": ["q_proj.weight"]}, r"q_proj.weight, of shape \(16, 16\)"),
        ({"target_parameters": []}, "must not be an empty list"),
        ({"target_parameters": "experts.down_proj"}, "must have a value of its type"),
        ({**DOWN, "delta_bias": "dense"}, 'must be "none" with target_parameters'),
        ({**DOWN, "target_modules": ["q_proj"], "layers_to_transform": [0]}, "chooses modules, not target_parameters"),
        ({**DOWN, "target_modules": ["q_proj"], "modes": EXPERT}, r"q_proj: name stacks"),
        ({"target_modules": ["q_proj"], "modes": EXPERT}, "q_proj: name stacks"),
        ({**BOTH, "modes": EXPERT}, "one adapter for each size, with target_parameters"),
        ({**DOWN, "rank_pattern": {"experts.downproj": 2}}, "did you mean"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_model_as_it_was(fields, message):
    model = base()
    before = {name: id(module) for name, module in model.named_modules()}
    with pytest.raises(ConfigurationError, match=message):
        get_peft_model(model, TensorTrainConfig(**{"rank": 2, **fields}))
    assert {name: id(module) for name, module in model.named_modules()} == before


def test_the_mode_expert_belongs_to_the_tuner():
    with pytest.raises(ConfigurationError, match="in the PEFT tuner alone"):
        adapters.attach(llama(), {"kind": "tt_lora", "modes": EXPERT, "target_modules": ["q_proj"]})
    with pytest.raises(ConfigurationError, match="in the PEFT tuner alone"):
        adapters.TensorTrainSingleConfig(modes=EXPERT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda experts: experts.to(torch.float8_e4m3fn), "float8_e4m3fn, stored as a Tensor"),
        (lambda experts: setattr(experts, "_is_expert_parallel", True), "distributed over processes"),
        (lambda experts: register_parametrization(experts, "gate_up_proj", nn.Identity()), "from another Parameter"),
        (lambda experts: setattr(experts, "gate_up_proj", nn.Parameter(torch.zeros(4, 4))), r"of shape \(4, 4\)"),
    ],
)
def test_stacks_that_cannot_have_deltas_are_refused(change, message):
    model = base()
    change(model.model.layers[0].mlp.experts)
    with pytest.raises(ConfigurationError, match=message):
        get_peft_model(model, TensorTrainConfig(target_parameters=["experts.gate_up_proj"]))


def test_an_unsupported_implementation_is_refused_by_name():
    model = adapted(base())
    model.base_model.model.config._experts_implementation = "sonicmoe"
    with pytest.raises(ConfigurationError, match=r"'sonicmoe'.*set_experts_implementation"):
        logits(model)
    model.base_model.model.set_experts_implementation("eager")
    assert torch.equal(logits(model), logits(base(implementation="eager")))


def test_algebra_conversion_and_export_refuse_experts_by_name(tmp_path):
    model = scrambled(adapted(base()))
    model.save_pretrained(tmp_path)
    for call, error in (
        (lambda: Deltas.of(model), ConfigurationError),
        (lambda: Deltas.read(tmp_path), CheckpointError),
        (lambda: from_peft(tmp_path, tmp_path / "out"), CheckpointError),
        (lambda: export_lora(tmp_path, tmp_path / "out"), CheckpointError),
        (lambda: model.add_weighted_adapter(["default"], [2.0], "sum"), ConfigurationError),
    ):
        with pytest.raises(error, match=r"for each expert|target_parameters"):
            call()


def test_stacks_of_another_module_are_refused():
    """A module of a kind that transformers' experts interface does not know may compute anything with its stacks."""
    model = nn.ModuleDict({"experts": nn.ParameterDict({"down_proj": torch.zeros(2, 4, 4)})})
    with pytest.raises(ConfigurationError, match="of a ParameterDict, which does not use transformers' experts"):
        get_peft_model(model, TensorTrainConfig(target_parameters=["experts.down_proj"]))
