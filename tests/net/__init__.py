"""The specification of connections: messages over any stream, each wait under a deadline."""
