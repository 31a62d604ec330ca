"""Who is at the other end: strangers become peers here, and bytes become authentic messages.

Responsible for: cookie, hello and welcome on datagrams; the sealed link between two runs, whose replay
window is `trust.seal`'s; streams with their handshake, sealed frames, time limits and places; budgets of
strangers by address.
Ends where a message is understood: what it says is the router's to hand on.
Rules:
1. Before a valid cookie a stranger costs no state and no signature check, and gets back less than it sent.
2. Whoever says hello proves its key, in this run, at this address; a link belongs to one pair of runs.
3. A packet is opened once; one that does not open, or was seen before, is counted and dropped.
4. A stream is silent, slow or without end for a limited time only, and one identity has few of them.
In: datagrams and stream bytes, untrusted. Out: members that proved themselves, messages of authentic peers,
`SendDatagram`, `OpenStream`, `SendStream` and `CloseStream` effects.
Facade: `handshake.Handshake` for datagrams, `streams.Streams` for streams; `links` seals.
Paper: DTLS's cookie (RFC 9147 section 5.1). Deviation: SWIM's packets are not authenticated.
"""
