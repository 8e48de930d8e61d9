"""The decision point: evaluation order, idempotency, group commit over a Store, expiry, clock."""
