"""Errors that cross a ring, and whose fault each one is.

`OperatorError` is a sentence for a person: what failed, on what, why, what to do.
`MalformedInput` and its children are the only exceptions bytes from outside can raise.
"""


class OperatorError(Exception):
    """Something the person at the keyboard can mend; printed as one sentence, exit code 1."""


class UsageError(OperatorError):
    """The command's words are wrong; exit code 2."""


class MalformedInput(Exception):
    """Bytes from outside that cannot be read. Remote's fault. State unchanged.

    Every function whose name ends in `_untrusted` raises this type (or a child) and no other.
    """


class Untrusted(MalformedInput):
    """Well-formed, but not signed by whoever had to, or not for us. Remote's fault. State unchanged."""
