"""Version 1 of what shops once imported."""
