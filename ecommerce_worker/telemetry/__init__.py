"""What is told of each run, and who hears it."""
