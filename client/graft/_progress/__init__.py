"""Showing how far work is: in words, and on a line that moves."""
