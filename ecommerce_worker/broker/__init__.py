"""RabbitMQ: what travels through it, where it lies, and how it is published."""
