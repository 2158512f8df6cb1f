"""Orders that the shop has as paid and unfulfilled, and of which nothing is here, are published anew."""
