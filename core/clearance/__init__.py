"""Clearance: the runtime authority for AI agents."""
