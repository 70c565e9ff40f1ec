"""Sharing the machine: turns, memory, processors, and jobs that make way for predictions."""
