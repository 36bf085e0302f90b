"""Files: the offered one, the way between, and where it lands."""
