"""Programs that measure; see ``--help`` of each."""
