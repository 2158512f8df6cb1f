"""Publishing paid orders that RabbitMQ has lost."""
