"""Gossip side by side with Serf and kinship: the same work, one after the other, in one run."""
