"""Errors that cross a ring, and whose fault each one is.

`OperatorError` is a sentence for a person: what failed, on what, why, what to do.
`MalformedInput` and its children are the only exceptions bytes from outside can raise.
"""


class OperatorError(Exception):
    """Something the person at the keyboard can mend; printed as one sentence."""

    exit_code = 1


class UsageError(OperatorError):
    """The command's words are wrong."""

    exit_code = 2


class NodeReplaced(OperatorError):
    """Another machine is this node: no supervisor may start this agent again (EX_CONFIG)."""

    exit_code = 78


class NodeRevoked(NodeReplaced):
    """The authority took this node out of the mesh: no supervisor may start this agent again (EX_NOPERM)."""

    exit_code = 77


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence saying what has happened already; exit code 130."""


class MalformedInput(Exception):
    """Bytes from outside that cannot be read. Remote's fault. State unchanged.

    Every function whose name ends in `_untrusted` raises this type (or a child) and no other.
    """


class Untrusted(MalformedInput):
    """Well-formed, but not signed by whoever had to, or not for us. Remote's fault. State unchanged."""


class PeerRefused(Untrusted):
    """Whoever is at the other end of a TLS connection is not taken for anyone. Remote's fault.

    `code` is one word that stays the same (docs/IDENTITY.md), for metrics and logs; the text is a sentence.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def operator_error_in(error: BaseException) -> OperatorError | None:
    """Return the first OperatorError in what a nursery raised; None if anything else failed as well."""
    if isinstance(error, OperatorError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    _mendable, rest = error.split((OperatorError, KeyboardInterrupt))
    found = (operator_error_in(inner) for inner in error.exceptions)
    return next((inner for inner in found if inner is not None), None) if rest is None else None
