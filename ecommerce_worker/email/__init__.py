"""Mail: the requests of the shop, the vendors, and the tasks."""
