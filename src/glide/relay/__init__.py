"""The relay: a registry of who is here, and a dumb, fair, bounded pipe between two of them."""
