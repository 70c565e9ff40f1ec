"""Who goes first: turns, memory, processors, and jobs that make way for predictions."""
