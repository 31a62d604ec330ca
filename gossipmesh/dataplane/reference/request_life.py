"""What requests have in common whichever way they go: how one is refused, and how its end is written down."""

from collections.abc import Awaitable

from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamBad, DownstreamGone
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.state import now


class Refused(Exception):
    """A request is to be answered with an error of the engine's own; nothing has been answered yet.

    `details` are for the log, `reason` is for the client.
    """

    def __init__(self, status: int, flag: str, details: str, reason: str) -> None:
        super().__init__(details)
        self.status = status
        self.flag = flag
        self.details = details
        self.reason = reason


async def written_down(
    journal: Journal, downstream: Downstream, entry: Entry, answered: Awaitable[None]
) -> None:
    """Wait for `answered`, which answers the request or refuses it, and write down how that went.

    Raises:
        DownstreamGone, DownstreamBad: the client is to blame. State: written down; close it.
    """
    try:
        try:
            await answered
        except Refused as refused:
            entry.flag(refused.flag)
            entry.details = refused.details
            await downstream.answer(refused.status, refused.flag, refused.reason)
    except DownstreamGone:
        entry.flag("DC")
        raise
    except DownstreamBad:
        entry.flag("DPE")
        downstream.status = downstream.status or 400
        raise
    finally:
        entry.status = downstream.status
        entry.sent_bytes = downstream.sent_bytes
        entry.received_bytes = downstream.body.received_bytes
        journal.end(entry, now())
