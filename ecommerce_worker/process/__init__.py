"""Long-running processes: their output, and how they end."""
