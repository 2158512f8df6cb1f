"""Who sends deliveries: one file each, found by its name."""
