"""The address of the server, and the host names by which requests may call it."""

import socket

from adapters import ConfigurationError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ALL_ADDRESSES = ("0.0.0.0", "::")


def as_in_url(host: str) -> str:
    """A host as a URL has it: addresses of IPv6 stand in brackets."""
    return f"[{host}]" if ":" in host else host.lower()


def host_names(host: str) -> set[str] | None:
    """The names of a server that listens on ``host``; None if all are allowed, as it listens on all addresses."""
    return None if host in ALL_ADDRESSES else {*LOOPBACK, as_in_url(host)}


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 takes a free one.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        refuse_address(host, port, error)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        refuse_address(host, port, error)
    return bound


def refuse_address(host: str, port: int, error: Exception) -> None:
    """Raise the error of an address that cannot be used."""
    raise ConfigurationError(
        f"Options --host and --port must be a free address of this machine; got {as_in_url(host)}:{port}, {error}: "
        "choose another port, or 0 for any."
    ) from None
