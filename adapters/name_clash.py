"""adapter-hub's package is imported as ``adapters`` too; two packages of one name overwrite each other's files."""

import warnings
from importlib.metadata import PackageNotFoundError, version


def warn_of_other_package() -> None:
    """Warn if adapter-hub's distribution is installed in this environment."""
    try:
        other = version("adapters")
    except PackageNotFoundError:
        return
    warnings.warn(
        "An environment can have only one package imported as 'adapters'; got adapter-hub's "
        f"{other} in addition to this project's: uninstall it (pip uninstall adapters), or use separate environments.",
        stacklevel=3,
    )
