"""Stand-ins for tests, ours and others': a shop, a RabbitMQ, the services that send mail."""
