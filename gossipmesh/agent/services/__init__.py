"""The services of this node: their files, their checks, and what of both is published.

Ends at what the core is told to publish and the engine to serve; others' services are `agent.engine`'s.
"""
