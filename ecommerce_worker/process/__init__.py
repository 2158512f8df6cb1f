"""What each process of ours has that runs until it is told to stop: what it says, and how it ends."""
