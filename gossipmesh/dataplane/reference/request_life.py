"""What requests have in common whichever way they go: how their end is written down."""

from collections.abc import Awaitable

from gossipmesh.dataplane.reference.clock import now
from gossipmesh.dataplane.reference.entry import Entry
from gossipmesh.dataplane.reference.forward import Downstream, DownstreamBad, DownstreamCut, DownstreamGone
from gossipmesh.dataplane.reference.journal import Journal


async def written_down(
    journal: Journal, downstream: Downstream, entry: Entry, answered: Awaitable[None]
) -> None:
    """Wait for `answered`, which answers the request, and write down how that went.

    Raises:
        DownstreamGone, DownstreamBad: the client is to blame. State: written down; close it.
    """
    try:
        await answered
    except DownstreamCut:
        raise  # its flags say why already
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
