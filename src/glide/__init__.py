"""glide: send files to a person, by name, through a relay that you run and need not trust."""

__version__ = "0.1.0"
