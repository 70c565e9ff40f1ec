"""Calls that outlive a connection: adapting, bulk prediction and watching. What decides does no I/O; drivers do it."""
