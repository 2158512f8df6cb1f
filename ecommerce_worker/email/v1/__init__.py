"""Version 1 of the mail tasks."""
