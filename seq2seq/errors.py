"""What a library refuses, as one sentence that names the key it came from."""

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from adapters import ConfigurationError

LIBRARY_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)


@contextlib.contextmanager
def refusing(key: str, given: object) -> Iterator[None]:
    """Turn a library's error in the body into a ConfigurationError about ``key``, which was set to ``given``."""
    try:
        yield
    except ConfigurationError:
        raise
    except LIBRARY_ERRORS as error:
        raise ConfigurationError(
            f"Key {key!r} has a value that cannot be used; got {str(given)!r}: {as_sentence(error)}"
        ) from error


def as_sentence(error: Exception) -> str:
    """A library's message on one line, ending with a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."
