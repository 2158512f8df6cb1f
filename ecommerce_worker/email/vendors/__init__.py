"""One file for each vendor that sends mail."""
