"""An exhaustive explorer over the real gossip cores of three or four nodes.

Ends where the simulator begins: it takes every order of few things instead of a few orders of many. Rules:
1. The cores, the bytes and the disks are the real ones; only what is delivered, and when, is chosen.
2. A state is checked the moment it is reached, and explored once: equal states, up to renaming of nodes that
   play one part, are recognised by their fingerprints.
3. A search that ended early says so; a violation names the actions that lead to it.
"""
