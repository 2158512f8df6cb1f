"""Is all well?  What was looked at, and what is found about it: computed once, and shown by whoever is asked."""
