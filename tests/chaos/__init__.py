"""Seeded chaos: real processes behind proxies that fail; whatever happens, what lands is whole and lands once."""
