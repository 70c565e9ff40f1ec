"""Doors: each turns the messages of one protocol into nouns and back, and does nothing else."""
