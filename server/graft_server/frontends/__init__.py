"""Frontends: each converts the messages of one protocol to the domain's types and back, and does nothing else."""
