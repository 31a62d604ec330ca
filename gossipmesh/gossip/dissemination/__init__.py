"""What is told, to whom, and how often: everything that leaves as a sealed datagram, and signed documents.

Responsible for: the queue of updates and the shares of a packet; piggyback, ticks and urgent pushes;
choosing random members; packets that go by a stream as well; announcing, fetching, verifying and refusing
policy sets and Trust; whether this node runs what its peers run, and may answer calls.
Ends at what is told: whether a record is true is `membership`'s, whether a member is gone `failure`'s, and
what got lost on the way `repair`'s to find.
Rules:
1. The queue holds one update per kind and subject, so it never outgrows what is held.
2. What concerns the receiver goes first; then each share has its part of the room.
3. Urgent news goes on at once to a few, within a budget that is counted; nothing is pushed back where it
   came from.
4. A floor is on disk before its set is in force, and before anybody hears of it.
In: encoded messages with a key and an urgency, announcements of peers, sets and envelopes, untrusted.
Out: packets, requests to fetch by stream, `PolicyApplied`, `PolicyRefused` and `TrustChanged` events.
Facade: `courier.Courier` for records, `documents.PolicySpreading` for documents, `opening.Opening` for
whether this node is closed, `carriers.Carriers` for the members that packets reach by stream alone.
Paper: SWIM section 4.1, TUF section 5. Deviation: urgent news does not wait for a tick.
"""
