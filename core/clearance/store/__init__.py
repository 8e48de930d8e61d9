"""Where the ledger's rows are kept: the Store interface and its engines."""
