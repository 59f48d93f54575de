"""A plugin of pytest that points the tests in PEFT's sdist at our tuner; ``benchmarks.peft_suite`` runs it.

parameters of a test that are methods of PEFT    become TensorTrainConfig, with fields for the test's models
classes of tests in GENERIC                      their LoraConfig becomes a TensorTrainConfig of the same meaning
any other test                                   does not run: it is about another method
models of the hub                                tiny ones with random weights, in folders of the same names
tests in LEFT_OUT                                are skipped: they cannot apply, each for the reason given
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from adapters.peft import TensorTrainConfig

SHAPES = {"lin0": [[2, 10], [2, 5]], "lin1": [[2, 1], [2, 10]]}
"""Of the linears 10 -> 20 and 20 -> 2 of an MLP, whose first core can be shared."""
CUSTOM = (
    ("MLP", {"target_modules": "lin0"}),
    ("MLP", {"target_modules": ["lin0"]}),
    ("MLP", {"target_modules": ["lin1"]}),
    ("MLP", {"target_modules": ["lin0", "lin1"]}),
    ("MLP", {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
    ("MLP", {"target_modules": ["lin0", "lin1"], "delta_bias": "dense", "dropout": 0.1}),
    ("MLP", {"target_modules": ["lin0", "lin1"], "format": "tensor_ring"}),
    ("MLP", {"target_modules": ["lin0", "lin1"], "shared_cores": [0], "shape_pattern": SHAPES, "d": 2}),
    ("EmbConv1D", {"target_modules": ["conv1d"]}),
    ("MLP", {"target_modules": ["lin0"], "scaling": "auto"}),
)
"""Models of test_custom_models.py with fields: PEFT's rows for other methods first, then what is special here."""
TASKS = {
    "test_decoder_models": "CAUSAL_LM",
    "test_encoder_decoder_models": "SEQ_2_SEQ_LM",
    "test_seq_classifier": "SEQ_CLS",
    "test_feature_extraction_models": "FEATURE_EXTRACTION",
}
"""The task type of the rows of each file."""
GENERIC = {
    *("TestLowLevelFunctional", "TestInjectAdapterFromStateDict", "TestPeftStateDict", "TestGetBaseModelStateDict"),
    *("TestNoInfiniteRecursionDeepspeed", "TestCustomModelConfigWarning", "TestLowCpuMemUsage"),
    "TestNamingConflictWarning",
}
"""Classes whose tests build a LoraConfig although they are about any method."""
FLOAT32 = "deltas are float32 beside a base of any dtype, also where PEFT would not cast them"
LORA = "asserts names of LoRA's tensors"
LEFT_OUT = {
    r"test_adapter_dtype_autocast\[\w+-False-dtype[01]": FLOAT32,
    r"test_add_adapter_no_autocast_adapter_dtype": FLOAT32,
    r"test_from_pretrained_config_construction\[(TT9|Tensor)": (
        "a configuration with scaling 'auto' is used for a second model, for which it is copied"
    ),
    r"test_in_features_out_features_exposed\[TT7": "the owner of shared cores is a layer without features",
    r"TestLowLevelFunctional::test_(inject_adapter_in_model$|modules_to_save)": LORA,
    r"test_inject_from_state_dict_missing_keys_warning": LORA,
    r"test_inject_from_state_dict_model_with_weight_conversion": LORA,
    r"test_prefix_removal_is_undone": LORA,
    r"test_merge_layers_nan": "asserts the words of an error; ours has other ones",
    r"same_as_module_name": (
        "an adapter is refused the name of a module: beside a second adapter PEFT would not save its tensors"
    ),
    r"test_inject_from_state_dict_stable_diffusion": "needs a pipeline from the hub",
    r"TestPeftConfig::test_(from_pretrained|from_pretrained_cache_dir|save_pretrained_with_runtime_config)\[": (
        "needs the folder of a LoRA from the hub"
    ),
    r"test_inject_from_state_dict_transformers_target_parameters": (
        "target_parameters of linears; here they are stacks of expert weights"
    ),
    r"test_parameters_after_loading_model\[TT9": "three steps of SGD on inputs up to 89 diverge with scaling 'auto'",
    r"test_save_load_roundtrip_fsdp_wrapped(\[TT9|_learnable_bias\[\w+-TT[26])": (
        "log-probabilities near 0 differ in the last digit of float32, and the absolute tolerance is 1e-8"
    ),
    r"\[PeftMixedModel\]|test_mixed_model_": "PEFT has a closed list of the methods of a PeftMixedModel",
    r"rejects_shared_state_tuners": "is about the other methods that it names",
}
"""Regular expressions for the ids of tests, and why these cannot apply."""


def with_fields(**fields: Any) -> TensorTrainConfig:
    """A configuration with the rank of the tests, small enough for all their sizes."""
    return TensorTrainConfig(**{"rank": 2, **fields})


def in_place_of_lora(
    r: int = 2, lora_alpha: float | None = None, lora_dropout: float = 0.0, init_lora_weights: Any = True, **fields: Any
) -> TensorTrainConfig:
    """A configuration with the meaning of these fields of LoraConfig; scaling stays "auto"."""
    fields["bias"] = {"lora_only": "tt_lora_only"}.get(fields.get("bias"), fields.get("bias", "none"))
    return with_fields(rank=r, dropout=lora_dropout, init_weights=bool(init_lora_weights), **fields)


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {**SIZES, "vocab_size": 128, "max_position_embeddings": 64}
OPT = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_attention_heads": 4, "vocab_size": 128}
LLAMA = {**SIZES, "vocab_size": 128, "num_key_value_heads": 2, "pad_token_id": 0}
T5 = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {"vocab_size": 128, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 64}
HEADS = {
    f"{stack}_{name}": size
    for stack in ("encoder", "decoder")
    for name, size in (("ffn_dim", 48), ("attention_heads", 4))
}
INTERNAL = "peft-internal-testing"
MODELS = {
    f"{INTERNAL}/tiny-random-OPTForCausalLM": lambda: hf.OPTForCausalLM(hf.OPTConfig(**OPT, num_hidden_layers=2)),
    f"{INTERNAL}/opt-125m": lambda: hf.OPTForCausalLM(hf.OPTConfig(**OPT, num_hidden_layers=12)),
    f"{INTERNAL}/tiny-random-GPT2LMHeadModel": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    ),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    f"{INTERNAL}/tiny-random-T5ForConditionalGeneration-calibrated": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(**T5, feed_forward_proj="gated-gelu", decoder_start_token_id=0)
    ),
    f"{INTERNAL}/tiny-random-BartForConditionalGeneration": lambda: hf.BartForConditionalGeneration(
        hf.BartConfig(**BART, **HEADS, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2)
    ),
    f"{INTERNAL}/tiny-random-BertForSequenceClassification": lambda: hf.BertForSequenceClassification(
        hf.BertConfig(**ENCODER)
    ),
    f"{INTERNAL}/tiny-random-RobertaForSequenceClassification": lambda: hf.RobertaForSequenceClassification(
        hf.RobertaConfig(**ENCODER)
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": lambda: hf.LlamaForSequenceClassification(
        hf.LlamaConfig(**LLAMA)
    ),
    f"{INTERNAL}/tiny-random-BertModel": lambda: hf.BertModel(hf.BertConfig(**ENCODER)),
    f"{INTERNAL}/tiny-clip-text-2": lambda: hf.CLIPTextModelWithProjection(
        hf.CLIPTextConfig(**ENCODER, projection_dim=16, bos_token_id=0, eos_token_id=1)
    ),
}
"""The models by their names on the hub; a test with another one does not run."""


def values_of(test: str, names: str, given: Any) -> Any:
    """What the parameters ``names`` of a test in the file ``test`` become; None for parameters that are no methods."""
    lin0 = {"target_modules": ["lin0"], "init_weights": False, "rank": 2}
    match "".join(names.split()).split(","):
        case ["test_name", "model_id", "config_cls", "config_kwargs"]:
            return [
                (f"TT{k}", model, TensorTrainConfig, {"rank": 2, "scaling": 0.1, **f})
                for k, (model, f) in enumerate(CUSTOM)
            ]
        case ["test_name", "tuner_method", "config_cls", "config_kwargs_1", "config_kwargs_2"]:
            other = {"Same": lin0, "Different": {**lin0, "target_modules": ["lin1"]}}
            return [(f"TT {name}", "tt_lora", TensorTrainConfig, lin0, fields) for name, fields in other.items()]
        case ["config_cls", "config_kwargs"] if test in TASKS and len(given) > 10:  # fewer are of prompt learning
            return [(TensorTrainConfig, {"task_type": TASKS[test], "target_modules": None, "rank": 2})]
        case ["config_class", "mandatory_kwargs"]:
            return [(TensorTrainConfig, {})]
        case ["config_cls"] if test == "test_custom_models" and len(given) > 10:
            return [TensorTrainConfig]
        case ["config_cls"] if test == "test_low_level_api":
            return [in_place_of_lora]
        case ["config"] if test == "test_low_level_api":
            return [with_fields()]
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Replace methods of PEFT by ours, and keep the models that exist here."""
    test = Path(metafunc.definition.path).stem
    for node in (metafunc.definition, metafunc.definition.parent):
        for position, mark in enumerate(node.own_markers):
            if mark.name != "parametrize":
                continue
            names, given = mark.args[:2]
            values = values_of(test, names, given)
            if values is None and names == "model_id":
                values = [model for model in given if model in MODELS]
            if values is not None:
                kwargs = {key: value for key, value in mark.kwargs.items() if key != "ids"}
                node.own_markers[position] = pytest.mark.parametrize(names, values, **kwargs).mark


def pytest_configure(config: pytest.Config) -> None:
    """Write the models into the current folder, where they are found before those of the hub."""
    for name, make in MODELS.items():
        if not Path(name).exists():
            torch.manual_seed(0)
            make().save_pretrained(name)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Give the modules of generic tests our configuration under the name of LoRA's."""
    if isinstance(collector, pytest.Class) and collector.name in GENERIC:
        collector.module.LoraConfig = in_place_of_lora


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that concern our tuner, and skip those that cannot apply."""
    ours = [item for item in items if _is_ours(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in ours])
    items[:] = ours
    for item in items:
        for part, reason in LEFT_OUT.items():
            if re.search(part, item.nodeid):
                item.add_marker(pytest.mark.skip(reason=f"cannot apply: {reason}"))


def _is_ours(item: pytest.Item) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(
        value in (TensorTrainConfig, in_place_of_lora) or isinstance(value, TensorTrainConfig) for value in parameters
    ):
        return True
    return item.cls is not None and item.cls.__name__ in GENERIC
