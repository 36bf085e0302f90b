"""The specification of the relay: names, pipes, and what no client can do to the others."""
