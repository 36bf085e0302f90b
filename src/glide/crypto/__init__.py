"""Keys, handshakes and records: the encryption of every connection. Nothing here knows trio."""
