"""The search for the best head among the candidates."""
