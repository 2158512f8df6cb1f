"""RabbitMQ: how what travels there is read."""
