"""Version 1 of the tasks that began with Sailthru."""
