"""Whom this machine knows, and who may send it what."""
