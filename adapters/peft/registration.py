"""Registering the method with PEFT: a member of its enum of methods, then its own registration.

``PeftType`` is a closed enum, and ``register_peft_method`` takes only names that are members of it.
"""

import functools
from collections.abc import Callable

from peft import PeftConfig, PeftType, mixed_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from adapters.peft.configuration import METHOD, PREFIX, TensorTrainConfig
from adapters.peft.model import TensorTrainModel
from adapters.validation import ConfigurationError

CHECK = "_check_config_compatible"
"""The function by which PEFT refuses methods in its PeftMixedModel."""


def register() -> None:
    """Register the method TT_LORA with PEFT, once.

    The prefix is in every adapter parameter's path and in no path of a base model, as transformers' ``load_adapter``
    recognises adapter tensors by it; "tt" alone would match "attention".

    Raises:
        KeyError: PEFT, or another package, has a method of that name.
    """
    if PEFT_TYPE_TO_TUNER_MAPPING.get(METHOD.upper()) is TensorTrainModel:
        return
    if METHOD.upper() not in PeftType.__members__:
        _add_member(METHOD.upper())
    register_peft_method(name=METHOD, config_cls=TensorTrainConfig, model_cls=TensorTrainModel, prefix=PREFIX)
    if hasattr(mixed_model, CHECK):  # private, so that other versions of PEFT may lack it
        setattr(mixed_model, CHECK, _refuse_in_mixed_model(getattr(mixed_model, CHECK)))


def _refuse_in_mixed_model(check: Callable[[PeftConfig], None]) -> Callable[[PeftConfig], None]:
    """PEFT's check of a configuration for its PeftMixedModel, with the reason and the remedy for ours."""

    @functools.wraps(check)
    def checked(peft_config: PeftConfig) -> None:
        if isinstance(peft_config, TensorTrainConfig):
            raise ConfigurationError(
                "PeftMixedModel mixes the methods of a closed list, whose layers PEFT builds itself; got TT_LORA: "
                "convert a LoRA to a tensor train, which it is (docs/peft.md), and make both adapters active."
            )
        check(peft_config)

    return checked


def _add_member(name: str) -> None:
    """Add ``PeftType.<name>`` with its name as value; the attribute first, as a known member cannot be set."""
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    setattr(PeftType, name, member)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
