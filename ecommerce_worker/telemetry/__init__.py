"""Reports of runs, and their listeners."""
