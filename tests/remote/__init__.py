"""The client of a server: against a fault-injecting one of our own, and against the real one."""
