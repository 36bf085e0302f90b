"""What a relay takes: thousands of clients, hundreds of transfers, and one receiver that is slow: ``make load``."""
