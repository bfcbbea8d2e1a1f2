"""Our engine beside its peers: engines (how each is run), rows (what is compared), report (ratios, table, JSON), models (files)."""
