"""Is all well?  The checks and their findings: computed once, shown alike by ``status``, the console and JSON."""
