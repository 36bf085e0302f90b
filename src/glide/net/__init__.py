"""The one place where a trio Stream meets the protocol."""
