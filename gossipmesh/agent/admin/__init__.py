"""What people and programs ask a running agent: the admin API, checks with their rows, metrics.

Responsible for: sockets and HTTP, plain values gathered from the agent's parts, and the words of a check.
Ends at telling: nothing is decided here, and what changes anything is handed to the part it belongs to.
"""
