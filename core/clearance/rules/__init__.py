"""Pure checks that come before the ledger, one file a rule."""
