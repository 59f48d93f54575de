"""The methods of PEFT that are supported as adapter kinds, and their supported keys.

A type is not supported if it does not adapt layers individually, or needs PEFT's own model class around the forward. A
key is not supported if nothing here would read it, or if it would change the base model.
"""

from importlib.util import find_spec

from adapters.validation import ConfigurationError, nearest_name

PREFIX = "peft:"
FAMILY = f"{PREFIX}<TYPE>"

UNSUPPORTED_TYPES = {
    **dict.fromkeys(
        ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
        'puts vectors before the input instead of adapting layers: use {"kind": "prompt"}',
    ),
    "ADAPTION_PROMPT": 'puts prompts into Llama\'s attention: use {"kind": "prompt"}',
    "ADALORA": "needs a rank schedule and a loss term that the trainer does not have: use peft:LORA",
    "XLORA": "mixes LoRA adapters that are already trained: use peft:LORA",
    "ADAMSS": "splits the weights by clustering them, which rounding changes: use peft:LORA",
    "FROD": "rebuilds the base's weights from a decomposition of them, which rounding changes: use peft:VERA",
    "POLY": "needs task ids in every forward: attach peft:LORA for each task",
    "SHADOW": "runs a second model beside the first: use peft:LORA",
    "TRAINABLE_TOKENS": "trains rows of the embedding, which is not in a sublayer: use peft:LORA",
    "TT_LORA": 'is a kind of this library: use {"kind": "tt_lora"}',
}
"""PEFT's types that are not supported, and why."""

UNSUPPORTED_KEYS = {
    **dict.fromkeys(
        ("task_type", "peft_type", "auto_mapping", "peft_version", "revision", "base_model_name_or_path"),
        "is set by this library",
    ),
    "inference_mode": "is decided by model.train() and model.eval()",
    "modules_to_save": "is replaced by the kinds layer_norm and none",
    "bias": "trains the biases of the base: use the kind bitfit beside it",
    "trainable_token_indices": "trains rows of the embedding, which is not in a sublayer",
    "target_parameters": "is for parameters outside linears, as of experts: use PEFT itself",
    "layer_replication": "changes the base model",
    "ensure_weight_tying": "is about the embedding, which is not in a sublayer",
    "save_only_topk_weights": "saves too little to resume training",
    "megatron_core": "is for another framework",
    "use_bdlora": "takes an object of PEFT, which JSON cannot represent",
    "alora_invocation_tokens": "needs the input's tokens in every layer",
}
"""PEFT's keys that are not supported, and why; nor are those ending with _config, which take objects of PEFT."""

STARTS = {
    "FOURIERFT": {"init_weights": True},
    "C3A": {"init_weights": True},
    "SHIRA": {"random_seed": 0},
}
"""Replacements for defaults of PEFT that start away from the base model, or differently each time."""

ZERO_START_NAMES = (True, False, "gaussian", "orthogonal")
"""Values of init_lora_weights that leave the base's weight unchanged."""


def config_class_of(peft_type: str) -> type:
    """PEFT's configuration class of a supported type.

    Raises:
        ConfigurationError: PEFT is not installed, has no such type, or the type is not supported.
    """
    if find_spec("peft") is None:
        raise ConfigurationError(
            f"The kinds {FAMILY} need PEFT; got {PREFIX + peft_type!r} and PEFT is not installed: "
            "run `pip install peft`."
        )
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {member.value: config_class for member, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if peft_type in UNSUPPORTED_TYPES:
        raise ConfigurationError(
            f"The kinds {FAMILY} adapt layers of the model individually; got {PREFIX + peft_type!r}, which "
            f"{UNSUPPORTED_TYPES[peft_type]}."
        )
    if peft_type not in known:
        raise ConfigurationError(
            f"The <TYPE> of a kind {FAMILY} must be a type of the installed PEFT; got {PREFIX + peft_type!r}: "
            f"{nearest_name(peft_type, known.keys() - UNSUPPORTED_TYPES.keys())}"
        )
    return known[peft_type]


def tuner_class_of(peft_type: str) -> type:
    """PEFT's tuner class of a type, which injects its layers."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return next(tuner for member, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if member.value == peft_type)


def unsupported_reason(key: str) -> str | None:
    """Why a key of PEFT is not supported, or None if it is."""
    return "takes an object of PEFT, which nothing here reads" if key.endswith("_config") else UNSUPPORTED_KEYS.get(key)
