"""The tests, which mirror the package; each file reads as the specification of one module."""
