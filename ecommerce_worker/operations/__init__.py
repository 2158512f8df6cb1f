"""What people do with messages and queues."""
