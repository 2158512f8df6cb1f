"""The functional test of a deployment: an order of its own, followed step by step to its end."""
