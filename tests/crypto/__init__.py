"""The specification of keys, handshakes and records."""
