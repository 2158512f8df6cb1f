"""RabbitMQ: messages, topology, and connections."""
