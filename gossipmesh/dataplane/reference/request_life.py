"""What requests have in common whichever way they go: how one is refused, and how its end is written down."""

from collections.abc import Awaitable

from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamBad, DownstreamGone
from gossipmesh.dataplane.reference.journal import Journal
from gossipmesh.dataplane.reference.state import now


async def refuse(
    downstream: Downstream, entry: Entry, status: int, flag: str, details: str, reason: str
) -> None:
    """Answer a request with an error of the engine's own: `details` for the log, `reason` for the client.

    Raises:
        DownstreamGone: the client is not there any more. State: close it.
    """
    entry.flag(flag)
    entry.details = details
    await downstream.answer(status, flag, reason)


async def written_down(
    journal: Journal, downstream: Downstream, entry: Entry, answered: Awaitable[None]
) -> None:
    """Wait for `answered`, which answers the request, and write down how that went.

    Raises:
        DownstreamGone, DownstreamBad: the client is to blame. State: written down; close it.
    """
    try:
        await answered
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
