"""Mail: what the shop asks for, who sends it, and the tasks that have it sent."""
