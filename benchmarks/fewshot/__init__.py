"""Tuning on few examples: what it gains where meaning is not topic, and what it must not lose elsewhere."""
