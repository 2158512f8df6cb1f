"""Orders over HTTP: turns signed deliveries from shops into messages."""
