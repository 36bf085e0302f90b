"""How long a file, or many, take with glide and with its real peers, over loopback: ``make bench``."""
