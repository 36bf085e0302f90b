"""What happens when a party dies, stops or misbehaves, shown with real processes."""
