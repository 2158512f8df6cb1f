"""Sailthru: its API, and the purchases that are reported to it."""
