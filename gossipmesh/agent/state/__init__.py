"""What this node finds again after a start: records, floors, and the core made of them; its flight recorder.

Ends at the core, which decides what is kept; the identity has a file of its own (`agent.identity`).
"""
