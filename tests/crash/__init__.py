"""Processes that fight for one ledger, die in mid-operation, fork and cancel."""
