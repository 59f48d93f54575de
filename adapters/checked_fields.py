"""CheckedFields: what frozen dataclasses of JSON keys share that check their values when they are made."""

from typing import Any, NoReturn

from adapters.validation import refuse


class CheckedFields:
    """Mixin of a frozen dataclass with an attribute ``where``, what error messages call it."""

    where: str

    def _set(self, **values: Any) -> None:
        """Set fields to their resolved values; called from ``__post_init__`` only."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def refuse(self, key: str, rule: str, given: Any, fix: str) -> NoReturn:
        """Raise the error of one key of this configuration, see ``adapters.validation.refuse``."""
        refuse(key, rule, given, fix, self.where)

    def check_positive(self, key: str, typical: str) -> None:
        """Raise ConfigurationError unless a field is None or at least 1, suggesting ``typical`` values."""
        value = getattr(self, key)
        if value is not None and value < 1:
            self.refuse(key, "must be a positive integer", value, f"{typical} is typical")
