"""How many sign what, and what holds where no policy speaks: what `authority init` asks and says aloud."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gossipmesh.model.documents import Access
from gossipmesh.model.errors import UsageError

if TYPE_CHECKING:
    from gossipmesh.model.documents import TrustDocument

F = TypeVar("F", bound=Callable[..., Any])


def threshold_options(command: F) -> F:
    """Add the options that `read_thresholds` reads."""
    options = (
        click.option(
            "--root-threshold",
            type=int,
            metavar="N",
            help="How many document root keys sign Trust; one more is made. Default: 2 of 3.",
        ),
        click.option(
            "--policy-threshold",
            multiple=True,
            metavar="SCOPE=N",
            help="How many signers of a scope sign its sets; repeat for more. Default: 1.",
        ),
        click.option(
            "--access",
            type=click.Choice([access.value for access in Access]),
            default=Access.ALLOW.value,
            show_default=True,
            help="Whether calls are allowed where no policy is in force yet.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_thresholds(
    root_threshold: int | None, policy_threshold: Sequence[str], access: str
) -> dict[str, Any]:
    """Return what the options say, as fields of a `Plan`.

    Raises:
        UsageError: not SCOPE=N, or a scope twice. State unchanged.
    """
    by_scope: dict[str, int] = {}
    for text in policy_threshold:
        scope, _, number = text.partition("=")
        if not scope or not number.isascii() or not number.isdigit() or len(number) > 4:
            raise UsageError(f"--policy-threshold: {text[:80]!r} is not SCOPE=N, such as mesh=2")
        if scope in by_scope:
            raise UsageError(f"--policy-threshold: the scope {scope!r} is given twice")
        by_scope[scope] = int(number)
    return {"root_threshold": root_threshold, "policy_threshold": by_scope, "access": Access(access)}


def thresholds_told(trust: "TrustDocument") -> list[str]:
    """Return what a first Trust asks for, in sentences."""
    lines = [f"Trust is signed by {trust.root_threshold} of {len(trust.root_keys)} document root keys"]
    scopes = dict.fromkeys(scope for signer in trust.signers for scope in signer.scopes)
    for scope in scopes:
        there = sum(1 for signer in trust.signers if scope in signer.scopes)
        needed = trust.policy_threshold.get(scope, 1)
        lines.append(f"policy of {scope} is signed by {needed} of {there} signers")
    if trust.access is Access.DENY:
        lines.append("access: deny: a node without policy answers no call")
    else:
        lines.append("access: allow: what no policy speaks of is allowed (--access deny closes it)")
    return lines
