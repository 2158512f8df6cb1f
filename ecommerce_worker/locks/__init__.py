"""Who excludes whom: on one machine, or on one RabbitMQ."""
