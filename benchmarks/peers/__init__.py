"""What one might write in place of the worker: programs to compare it with, which promise little."""
