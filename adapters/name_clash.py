"""adapter-hub's package is also imported as ``adapters``; two packages of one name overwrite each other's files."""

import warnings
from importlib.metadata import PackageNotFoundError, version


def warn_of_other_package() -> None:
    """Warn where adapter-hub's distribution is installed in this environment."""
    try:
        other = version("adapters")
    except PackageNotFoundError:
        return
    warnings.warn(
        "One environment holds one package that is imported as 'adapters'; beside this project's, adapter-hub's "
        f"{other} is installed: uninstall it here (pip uninstall adapters), or use an environment of its own for each.",
        stacklevel=3,
    )
