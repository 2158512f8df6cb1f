"""The console: pages on which support staff and operators find, resend and discard orders, from the ledger."""
