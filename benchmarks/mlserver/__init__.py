"""The peer: a custom runtime for MLServer, and what it serves."""
