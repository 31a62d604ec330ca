"""A deterministic simulator of a whole mesh: virtual time, the real cores, the real bytes.

Ends where sockets begin: it performs the effects of `GossipNode` itself. Rules:
1. Everything follows from the seed; no clock, no process state, no iteration over sets.
2. Faults are rules that count what they did; a fault that never fired fails the run.
3. Invariants are checked while the run goes on, so a failure names the event that broke one.
"""
