"""Names and numbers that select modules: each must exist in the model, and the nearest existing name is suggested."""

import json

import pytest
import torch
from peft import PeftModel, TaskType, get_peft_model
from torch import nn

from adapters import CheckpointError, ConfigurationError
from adapters.peft import TensorTrainConfig
from tests.adapters.peft.tiny import adapted, bert, gpt2, layers, llama, logits, primes, t5, trainable

# PEFT 0.21 asks a model of transformers 5.23 for a property that has been renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

Q = {"target_modules": ["q_proj"]}
REFUSED = [
    # target_modules
    (llama, {"target_modules": ["q_proj", "vproj"]}, "'target_modules'.*got 'vproj': did you mean 'v_proj'"),
    (llama, {"target_modules": {"q_proj", "k_prj"}}, "got 'k_prj': did you mean 'k_proj'"),
    (llama, {"target_modules": ["q_proj", "proj"]}, "got 'proj'"),  # an end of a name, not of a path
    (llama, {"target_modules": ["self_atn.q_proj"]}, r"did you mean 'self_attn\.q_proj'"),
    (
        llama,
        {"target_modules": ["model.layers.0.self_attn.q_prj"]},
        r"did you mean 'model\.layers\.0\.self_attn",
    ),
    (t5, {"target_modules": ["q", "wi_0"]}, "got 'wi_0': did you mean 'wi'"),  # of a gated T5
    (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fcc"]}, "did you mean 'c_fc'"),
    (primes, {"target_modules": ["0", "7"]}, "got '7': known are 0, 2, 4"),
    (llama, {"target_modules": r".*\.qproj"}, "matches none: did you mean 'q_proj'"),
    (llama, {"target_modules": "q_proj"}, r"matches none: for an end of paths write a list, \['q_proj'\]"),
    (llama, {"target_modules": "all_linear"}, "did you mean 'all-linear'"),
    # exclude_modules
    (llama, {**Q, "exclude_modules": ["v_pro"]}, "'exclude_modules'.*got 'v_pro': did you mean 'v_proj'"),
    (llama, {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["v_proj", "kproj"]}, "got 'kproj'"),
    (llama, {"target_modules": "all-linear", "exclude_modules": ["lm_hed"]}, "did you mean 'lm_head'"),
    (llama, {**Q, "exclude_modules": ".*mpl.*"}, "matches none: did you mean 'mlp'"),
    # modules_to_save
    (bert, {"target_modules": ["query"], "modules_to_save": ["clasifier"]}, "'modules_to_save'.*mean 'classifier'"),
    (bert, {"target_modules": ["query"], "modules_to_save": ["classifier", "poolr"]}, "got 'poolr'.*mean 'pooler'"),
    (bert, {"target_modules": ["query"], "modules_to_save": ["score"]}, "got 'score'"),
    (bert, {"target_modules": ["query"], "modules_to_save": ["ifier"]}, "got 'ifier'"),
    # layers_to_transform and layers_pattern
    (llama, {**Q, "layers_to_transform": [0, 7]}, "'layers_to_transform'.*got 7: these are 0, 1"),
    (llama, {**Q, "layers_to_transform": [0, -1]}, "got -1: these are 0, 1"),
    (llama, {**Q, "layers_to_transform": 2}, "got 2: these are 0, 1"),
    (t5, {"layers_to_transform": [2]}, "got 2: these are 0, 1"),  # the default targets
    (
        bert,
        {"target_modules": ["query", "pooler.dense"], "layers_to_transform": [0]},
        "'pooler.dense', which",
    ),
    (llama, {"target_modules": r".*q_proj", "layers_to_transform": [0]}, r"got \[0\] with '\.\*q_proj', which selects"),
    (llama, {"target_modules": "all-linear", "layers_to_transform": [0]}, "got .* with 'all-linear', which selects"),
    (llama, {"target_modules": ["model.layers.0.mlp.up_proj"], "layers_to_transform": [1]}, "selects modules of any"),
    (llama, {**Q, "layers_pattern": "layers"}, "'layers_pattern'.*got 'layers' without it: name the layers"),
    (llama, {**Q, "layers_to_transform": [0], "layers_pattern": "layrs"}, "got 'layrs': did you mean 'layers'"),
    (llama, {**Q, "layers_to_transform": [0], "layers_pattern": ["layers", "h"]}, "got 'h': known are layers"),
    # patterns of ranks and shapes
    (llama, {**Q, "rank_pattern": {"k_proj": 1}}, "'rank_pattern'.*got 'k_proj': did you mean 'q_proj'"),
    (llama, {**Q, "shape_pattern": {"k_proj": [[4, 4], [4, 4]]}}, "'shape_pattern'.*got 'k_proj'"),
]


def readable(value):
    """The same name of a case in every process."""
    return getattr(value, "__name__", None)  # None: a number


@pytest.mark.parametrize(("build", "fields", "sentence"), REFUSED, ids=readable)
def test_what_is_not_in_the_model_is_refused_before_anything_changes(build, fields, sentence):
    base = build()
    with pytest.raises(ConfigurationError, match=sentence):
        get_peft_model(base, TensorTrainConfig(rank=2, **fields))
    assert [name for name, _ in base.named_parameters()] == [name for name, _ in build().named_parameters()]
    assert all(parameter.requires_grad for parameter in base.parameters())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"target_modules": [3]}, r"'target_modules'.*got \[3\]"),
        ({"target_modules": []}, "'target_modules' .*empty list"),
        ({"target_modules": ".*(q_proj"}, r"'target_modules' .*regular expression; got '\.\*\(q_proj' \(missing \)"),
        ({"exclude_modules": "*"}, "'exclude_modules' .*regular expression"),
        ({"exclude_modules": {1}}, "'exclude_modules'"),
        ({"modules_to_save": "classifier"}, "'modules_to_save' .*got 'classifier'"),
        ({"layers_to_transform": []}, "'layers_to_transform' .*empty list"),
        ({"layers_to_transform": ["0"]}, "'layers_to_transform'"),
        ({"layers_to_transform": True}, "'layers_to_transform'"),
        ({"layers_to_transform": [0], "layers_pattern": ["("]}, "'layers_pattern' .*regular expression"),
    ],
    ids=readable,
)
def test_value_that_selects_nothing_in_any_model_is_refused(fields, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        TensorTrainConfig(**fields)


@pytest.mark.parametrize(
    ("build", "fields", "count"),
    [
        (t5, {}, 8),
        (t5, {"target_modules": ["wi", "wi_0", "wi_1", "wo"]}, 8),  # the default, as folders have it
        (llama, {"target_modules": ("q_proj", "v_proj")}, 4),
        (llama, {"target_modules": {"q_proj"}, "exclude_modules": ["v_proj"]}, 2),
        (llama, {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.0\..*"}, 2),
        (llama, {"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj"]}, 12),
        (llama, {"target_modules": ["q_proj", "lm_head"]}, 3),
        (llama, {"target_modules": ["model.layers.0.self_attn.q_proj"]}, 1),
        (llama, {**Q, "layers_to_transform": 1}, 1),
        (llama, {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [0]}, 2),
        (llama, {**Q, "layers_to_transform": [0, 1], "layers_pattern": "layers"}, 2),
        (t5, {"target_modules": ["wi"], "layers_to_transform": [1], "layers_pattern": ["block"]}, 2),
        (bert, {"target_modules": ["query"], "task_type": TaskType.SEQ_CLS}, 2),  # PEFT adds classifier and score
        (bert, {"target_modules": ["query"], "modules_to_save": ("classifier",)}, 2),
        (primes, {"target_modules": ["0", "4"]}, 2),
    ],
    ids=readable,
)
def test_existing_names_are_accepted(build, fields, count):
    assert len(layers(get_peft_model(build(), TensorTrainConfig(rank=2, **fields)))) == count


def test_second_adapter_is_checked_against_the_model_and_not_against_the_first():
    model = adapted(llama(), target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(ConfigurationError, match="got 'base_layer'"):
        model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["base_layer"]))
    model.add_adapter("third", TensorTrainConfig(rank=2, target_modules=["q_proj", "k_proj"]))
    assert list(model.peft_config) == ["default", "third"]
    assert len(layers(model)) == 4


def test_saved_adapter_loads_whatever_other_names_its_configuration_has(tmp_path):
    model = adapted(llama(), target_modules=["q_proj"])
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["q_proj", "vproj"]}))
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), tmp_path).eval()), logits(model))
    with pytest.raises(ConfigurationError, match="'vproj'"):
        PeftModel.from_pretrained(llama(), tmp_path, is_trainable=True)


def test_adapter_whose_tensors_have_no_place_is_refused(tmp_path):
    class Shorter(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model.model
            del self.model.layers[1]

    adapted(llama(), target_modules=["q_proj"]).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"got a delta at model\.layers\.1\..*q_proj.*its own base model"):
        PeftModel.from_pretrained(Shorter(llama()), tmp_path)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.merge_adapter(["secnd"]),
        lambda model: model.merge_and_unload(adapter_names=["default", "secnd"]),
        lambda model: model.base_model.set_adapter(["default", "secnd"]),
        lambda model: model.base_model.set_adapter("secnd"),
        lambda model: model.set_requires_grad("secnd"),
        lambda model: model.set_requires_grad(["default", "secnd"], False),
    ],
    ids=["merge", "merge and unload", "set", "set one", "train", "freeze"],
)
def test_unknown_name_of_an_adapter_is_refused(use):
    model = adapted(llama(), target_modules=["q_proj"])
    model.add_adapter("second", TensorTrainConfig(rank=2, target_modules=["q_proj"]))
    before, trained = logits(model), trainable(model)
    with pytest.raises(ConfigurationError, match="got 'secnd': did you mean 'second'"):
        use(model)
    assert torch.equal(logits(model), before)
    assert trainable(model) == trained


def test_single_name_where_a_list_belongs_is_refused():
    with pytest.raises(TypeError, match=r"list of strings, got 'default': write \['default'\]"):
        adapted(llama()).merge_adapter("default")
