"""Which methods of PEFT can be kinds, and which of their keys: those that a T5's layers and this trainer can serve.

A type is refused where it is no change of layers, or needs what only PEFT's own model class does around the forward. A
key is refused where nothing here would read it, or where it would change the base model.
"""

from importlib.util import find_spec

from adapters.validation import ConfigurationError, nearest_name

PREFIX = "peft:"
FAMILY = f"{PREFIX}<TYPE>"

REFUSED_TYPES = {
    **dict.fromkeys(
        ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
        'puts vectors before the input instead of changing layers: use {"kind": "prompt"}',
    ),
    "ADAPTION_PROMPT": 'puts prompts into Llama\'s attention: use {"kind": "prompt"}',
    "ADALORA": "needs a schedule of ranks and a term of the loss that the trainer does not have: use peft:LORA",
    "XLORA": "mixes LoRA adapters that were trained before: use peft:LORA",
    "ADAMSS": "cuts the weights by a clustering of them, which rounding changes: use peft:LORA",
    "FROD": "rebuilds the base's weights from a decomposition of them, which rounding changes: use peft:VERA",
    "POLY": "needs the ids of tasks in every forward: attach peft:LORA for each task",
    "SHADOW": "runs a second model beside the whole one: use peft:LORA",
    "TRAINABLE_TOKENS": "trains rows of the embedding, which is no layer of the stacks: use peft:LORA",
    "TT_LORA": 'is this library\'s own: use {"kind": "tt_lora"}',
}
"""Types that PEFT has and that cannot be kinds, and why."""

REFUSED_KEYS = {
    **dict.fromkeys(
        ("task_type", "peft_type", "auto_mapping", "peft_version", "revision", "base_model_name_or_path"),
        "is known without being said",
    ),
    "inference_mode": "is decided by model.train() and model.eval()",
    "modules_to_save": "is what the kinds layer_norm and none are for",
    "bias": "trains the base's biases, which a T5 does not have",
    "trainable_token_indices": "trains rows of the embedding, which is no layer of the stacks",
    "target_parameters": "is for parameters outside of linears, which a T5 block does not have",
    "layer_replication": "changes the base model",
    "ensure_weight_tying": "is about the embedding, which is no layer of the stacks",
    "save_only_topk_weights": "saves less than training needs to go on",
    "megatron_core": "is for another framework",
    "use_bdlora": "takes an object of PEFT, which JSON cannot hold",
    "alora_invocation_tokens": "needs the input's tokens in every layer",
}
"""Keys that PEFT has and that nothing here would read, and why; those ending with _config take objects of PEFT."""

STARTS = {
    "FOURIERFT": {"init_weights": True},
    "C3A": {"init_weights": True},
    "SHIRA": {"random_seed": 0},
}
"""Where PEFT's own default starts away from the base model, or draws differently each time: what stands instead."""

ZERO_START_NAMES = (True, False, "gaussian", "orthogonal")
"""Values of init_lora_weights that leave the base's weight alone."""


def config_class_of(peft_type: str) -> type:
    """PEFT's configuration class of a type that can be a kind.

    Raises:
        ConfigurationError: PEFT is not installed, has no such type, or the type cannot be a kind.
    """
    if find_spec("peft") is None:
        raise ConfigurationError(
            f"The kinds {FAMILY} are those of PEFT; got {PREFIX + peft_type!r} and PEFT is not installed: "
            "run `pip install peft`."
        )
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {member.value: config_class for member, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if peft_type in REFUSED_TYPES:
        raise ConfigurationError(
            f"The kinds {FAMILY} change layers of the model by themselves; got {PREFIX + peft_type!r}, which "
            f"{REFUSED_TYPES[peft_type]}."
        )
    if peft_type not in known:
        raise ConfigurationError(
            f"The kinds {FAMILY} have the types of the installed PEFT; got {PREFIX + peft_type!r}: "
            f"{nearest_name(peft_type, known.keys() - REFUSED_TYPES.keys())}"
        )
    return known[peft_type]


def tuner_class_of(peft_type: str) -> type:
    """PEFT's class that injects the layers of a type."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return next(tuner for member, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if member.value == peft_type)


def refusal_of_key(key: str) -> str | None:
    """Why a key that PEFT knows is none here, or None where it is one."""
    return "takes an object of PEFT, which nothing here reads" if key.endswith("_config") else REFUSED_KEYS.get(key)
