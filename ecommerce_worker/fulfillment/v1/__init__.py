"""Fulfilment of paid orders, first version of its tasks."""
