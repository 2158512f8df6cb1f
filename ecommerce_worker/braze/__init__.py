"""What shops once imported from here; mail through Braze is ``email.vendors.braze`` now."""
