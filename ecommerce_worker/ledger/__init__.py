"""The ledger: what became of each order, in a database of its own; a Django application, run apart from any other."""
