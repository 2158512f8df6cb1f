"""What happens to one message: it is run, and ends in one of five outcomes."""
