"""What is in deploy/ holds together: files of other programs, without those programs running."""
