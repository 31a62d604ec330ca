"""This node's engine, as the agent sees it: its process, its listeners, what it is told and what it counted.

Responsible for: starting, attaching to and replacing an engine; the sockets that engines are given; snapshots
compiled from gossip and policy; identities and tables of keys as an engine takes them; sums over restarts.
Ends at the engine protocol: what traffic does is the engine's, who this node is `agent.identity`'s.
"""
