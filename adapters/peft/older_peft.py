"""transformers' own adapter methods may need a newer PEFT than the one installed, even the newest that is released."""

import warnings
from importlib.metadata import version

from packaging.version import Version
from transformers.integrations import peft as own_methods


def needed_peft() -> str | None:
    """The version of PEFT that transformers' own adapter methods need, if the installed one is older; else None."""
    needed = getattr(own_methods, "MIN_PEFT_VERSION", "0")
    return needed if Version(version("peft")) < Version(needed) else None


def warn_of_older_peft() -> None:
    """Warn that ``add_adapter`` and the like will refuse to run, and say what works."""
    needed = needed_peft()
    if needed is not None:
        warnings.warn(
            f"The own adapter methods of transformers {version('transformers')} (model.add_adapter, set_adapter, "
            f"disable_adapters and others) need PEFT {needed}; got PEFT {version('peft')}: use get_peft_model and "
            "PeftModel, which work, or install an earlier transformers.",
            stacklevel=3,
        )
