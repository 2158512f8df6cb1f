"""A demonstration on one machine, with a stand-in for LMS and shop and a RabbitMQ of its own."""
