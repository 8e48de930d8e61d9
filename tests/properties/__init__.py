"""The authority against a naive model of the protocol, step by step."""
