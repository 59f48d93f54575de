"""What an adapter kind is called here, for names that other libraries and papers use."""

import re
from collections.abc import Iterable
from importlib.util import find_spec

_MEANT = {
    '"bottleneck"': ("adapter", "adapters", "houlsby", "serial_adapter", "double_seq_bn"),
    '"bottleneck" with "sublayers": ["feed_forward"]': ("pfeiffer", "seq_bn"),
    '"prompt"': ("prompt_tuning", "soft_prompt", "prefix_tuning", "prefix", "p_tuning", "p_tuning_v2", "cpt"),
    '"none"': ("full", "full_fine_tuning", "fine_tuning", "finetune", "full_ft", "ft"),
    '"intrinsic_said"': ("said", "intrinsic", "intrinsic_dimension"),
    '"compacter"': ("compacter++", "compacter_plus_plus"),
    '"bitfit"': ("bias", "biases"),
    '"layer_norm"': ("norm", "norms", "ln", "ln_tuning"),
    '"tt_lora"': (
        "tensor_train",
        "tt",
        "loretta",
        "loretta_rep",
        "lotr",
        "lorta",
        "metatt",
        "tucker",
        "cp",
        "tensor_ring",
    ),
    '"tt_adapter"': ("loretta_adp",),
    '"peft:LORA"': ("lora", "adalora", "qlora", "xlora"),
    '"peft:LORA" with "use_dora": true': ("dora",),
    '"peft:LORA" with "use_rslora": true': ("rslora",),
}
OTHER_NAMES = {name: meant for meant, names in _MEANT.items() for name in names}
"""Common names of methods, and the kind that is meant."""


def suggest_kind(kind: str, kinds: Iterable[str]) -> str | None:
    """The kind that is meant by a common name, or by another spelling of a kind or of a type of PEFT; None if unknown.

    Args:
        kind: the unknown kind.
        kinds: the known kinds.
    """
    folded = _fold(kind)
    meant = {_fold(name): f'"{name}"' for name in kinds} | {_fold(name): text for name, text in OTHER_NAMES.items()}
    if folded not in meant and find_spec("peft") is not None:
        from peft import PeftType

        meant |= {
            _fold(member.value): f'"peft:{member.value}"' for member in PeftType if _fold(member.value) not in meant
        }
    return meant.get(folded)


def _fold(name: str) -> str:
    """A name without case, hyphens, underscores and the prefix of PEFT's."""
    return re.sub(r"[\s_-]", "", name.casefold().removeprefix("peft:"))
