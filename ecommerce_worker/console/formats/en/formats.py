"""Formats by the names that Django has for them."""

#: In UTC, as on all other pages.
DATETIME_FORMAT = 'Y-m-d H:i:s'
