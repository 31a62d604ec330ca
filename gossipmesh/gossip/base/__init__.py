"""What every room stands on: this step's time and effects, timers, settings, lag, history, budgets.

Responsible for: one `Context` per core, shared by reference (`now`, random numbers, the effects of this
step, counters); one heap of deadlines; token buckets; the values a shell gives a core and reads back.
Ends where a decision begins: nothing here knows a member, a message or a room.
Rules:
1. `now` is set once at the start of a step and never goes back; nobody else asks what time it is.
2. An effect is a frozen value, added in order; the shell performs the list in that order.
3. A timer has a key; setting it again replaces it, so early, late and repeated calls are harmless.
4. Every budget is counted by identity or by address, and what is over it is counted, too.
In: numbers, settings and keys. Out: `Effect` and `Event` values (`effects`), `GossipStatistics`
(`settings`), `HistoryEntry` (`history`).
Start with: `context`, `effects`, `settings`.
Paper: none; SWIM leaves timers, disks and limits to its implementer. Deviation: that.
"""
