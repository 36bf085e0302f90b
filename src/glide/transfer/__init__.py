"""What the two ends do in the joined pipe: offer, consent, bytes, digests, receipt; and how files land."""
