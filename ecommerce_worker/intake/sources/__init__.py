"""The senders of deliveries, one file each, found by name."""
