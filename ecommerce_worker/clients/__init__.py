"""Clients of other services, one module each."""
