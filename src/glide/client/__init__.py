"""What a person's glide does: it dials a relay, registers, and sends, receives or asks."""
