"""Host names and HOST:PORT as text. Spec: RFC 1123 section 2.1."""

import re
from typing import Final

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import Address

_NAME_LENGTH_MAX: Final = 253
_LABEL: Final = re.compile("[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def is_host_name(text: str) -> bool:
    """Tell whether a lower-case text may be a host name; a mistyped IPv4 address is none."""
    labels = text.removesuffix(".").split(".")
    is_name = len(text) <= _NAME_LENGTH_MAX and all(_LABEL.fullmatch(label) for label in labels)
    return is_name and not labels[-1].isdigit()


def split_host_port(text: str) -> tuple[str, int] | None:
    """Return the host name, lower-case, and the port of NAME:PORT; None for anything else."""
    host, _, port = text.lower().rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    return (host, number) if is_host_name(host) and 0 <= number <= 65_535 else None


def is_host_port(text: str) -> bool:
    """Tell whether `text` is ADDRESS:PORT or NAME:PORT with a port one can connect to."""
    try:
        return Address.parse(text).port > 0
    except MalformedInput:
        named = split_host_port(text)
        return named is not None and named[1] > 0
