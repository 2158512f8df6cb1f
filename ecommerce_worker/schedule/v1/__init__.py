"""Version 1 of the scheduled tasks."""
