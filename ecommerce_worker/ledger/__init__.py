"""The ledger: the history of each order, in a database of its own; a Django application that runs separately."""
