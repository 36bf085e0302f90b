"""The specification of the protocol: bytes to meaning and back, without any input or output."""
