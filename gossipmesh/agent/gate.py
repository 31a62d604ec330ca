"""Whether this node answers calls yet, and in words: why not, what it waits for, and how to open it by hand.

The core decides (`gossip.dissemination.opening`); this says it, to people and to the agent's parts. Rules:
1. A closed node gives its engine no inbound section, so that callers are told to go elsewhere, and offers no
   endpoint that passes.
2. An engine that ran before this agent goes on with what it served: closed is who has never been open.
3. The reason is one sentence, and changes only when something did: it stands in the snapshot for readiness.
"""

import logging
from typing import Any, Final, Protocol

import trio

from gossipmesh.agent.logs import fields
from gossipmesh.gossip.base.effects import Opened
from gossipmesh.gossip.base.settings import OpeningView
from gossipmesh.model.instant import SECOND_NS
from gossipmesh.model.opening import HowOpened
from gossipmesh.model.records import NodeState

log = logging.getLogger("gossipmesh.agent")

BY_HAND: Final = "to open it whatever it lacks, run `gossipmesh release --open` on it"
_NAMES_MAX: Final = 5
_QUIET_NS: Final = SECOND_NS  # most joins take less, and need no word


class Core(Protocol):
    """What is read of a gossip core."""

    @property
    def opening(self) -> OpeningView:
        """Return whether the node answers calls yet, and what it waits for."""

    @property
    def own_state(self) -> NodeState:
        """Return the state last signed."""


class Gate:
    """What the core says of opening, for everybody else of the agent."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._told = ""
        self._is_serving = False
        self._is_open = trio.Event()
        self.opened: Opened | None = None  # how it came to be open since the start

    def found_serving(self) -> None:
        """Note that an engine answered calls before this agent: it goes on with what it served."""
        self._is_serving = True

    @property
    def is_closed(self) -> bool:
        """Tell whether this node is closed."""
        return self._core.opening.is_closed

    @property
    def withholds(self) -> bool:
        """Tell whether no call is answered here."""
        return self.is_closed and not self._is_serving

    @property
    def why(self) -> str:
        """Return why this node is closed, and what it waits for; empty when it is open."""
        view = self._core.opening
        return reason_of(view, refusals_of(self._core.own_state)) if view.is_closed else ""

    async def wait_open(self) -> None:
        """Return once this node is open."""
        if self.is_closed:
            await self._is_open.wait()

    def look(self) -> bool:
        """Log why this node is closed, whenever that is another reason; tell whether it is."""
        view = self._core.opening
        if not view.is_closed or view.closed_ns < _QUIET_NS:
            return False
        why = self.why
        if why == self._told:
            return False
        self._told = why
        log.error("closed, so no call is answered here: %s; %s", why, BY_HAND)
        return True

    def take(self, event: Opened) -> None:
        """Log that this node answers calls from now on, loudly where fewer agreed than should."""
        self.opened = event
        self._is_open.set()
        told = fields(how=event.how, agreed=event.agreed_count, wanted=event.needed_count)
        if event.how == HowOpened.BY_FEWER:
            text = (
                "open, by fewer members than should agree: a minute passed, and no others were there; see "
                "that they run what this node runs (`gossipmesh policy status`)"
            )
            log.error(text, extra=told)
        elif event.how == HowOpened.BY_HAND:
            log.warning("open by hand: nobody compared its policy and Trust with the mesh's", extra=told)
        else:
            log.info("open: calls are answered from now on", extra=told)

    def view(self) -> dict[str, Any]:
        """Return how it stands, for `/v1/status`."""
        view = self._core.opening
        return {
            "closed": view.is_closed,
            "why": self.why,
            "agreed": list(view.agreed),
            "differing": list(view.differing),
            "needed": view.needed_count,
            "opened_by": None if self.opened is None else self.opened.how,
        }


def refusals_of(state: NodeState) -> list[str]:
    """Return the sets above what it runs that a node refused last, each with its reason."""
    return [
        f"version {status.refused_version} of scope {status.scope} ({status.refused_reason})"
        for status in state.policies
        if status.refused_version > status.version
    ]


def reason_of(view: OpeningView, refused: list[str]) -> str:
    """Return in a sentence what a closed node waits for."""
    wanted = f"{view.needed_count} open {'member' if view.needed_count == 1 else 'members'}"
    if refused:
        return f"it cannot verify {', '.join(refused)}, which {_names(view.differing) or 'others'} may run"
    if not view.agreed and not view.differing:
        return f"it has heard of no open member what the mesh runs, and waits for {wanted}"
    if view.differing and len(view.differing) >= len(view.agreed):
        return f"{_names(view.differing)} run another policy or Trust than it has, or could verify"
    if not view.is_whole:
        return f"{_names(view.agreed)} run what it runs, and their table of members is not whole here yet"
    return f"{_names(view.agreed)} run what it runs, and it waits for {wanted}, for a minute"


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMES_MAX
    return ", ".join(names[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
