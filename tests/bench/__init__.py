"""How long one file takes with glide and with its real peers, over loopback: ``make bench``."""
