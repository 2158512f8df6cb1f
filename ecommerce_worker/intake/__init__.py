"""Orders over HTTP: signed deliveries of shops become messages."""
