"""The gossip core: a house of rooms, sans-IO, with one router that alone knows all of them.

`node` is what a shell sees: inputs in, effects out. `router` shows the life of a packet from top to bottom,
and `intake` what follows from a record that was merged. The rooms, from the bottom; each imports only what
stands above it in this list:

* `base`: time, effects, settings, budgets: what every room uses and none decides.
* `membership`: who is a member, what each signed, which record is newer, what goes to disk.
* `sessions`: who is at the other end: hello and cookie, sealed packets, replay, streams.
* `dissemination`: what is told to whom and how often: queue, ticks, pushes, policy and Trust.
* `failure`: who is gone: beats, probes, cases, votes, verdicts, quarantine.
* `repair`: what two nodes compare on a stream, when, and a newcomer's first table.
* `replay`: beside the core: recording what it was given, and giving it again.

docs/GOSSIP.md draws every arrow between them; pyproject.toml has the contracts that hold them.
Paper: SWIM (Das, Gupta, Motivala 2002). Deviation: docs/GOSSIP.md says where, each room in its header.
"""
