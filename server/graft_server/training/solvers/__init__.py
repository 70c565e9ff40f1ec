"""The numerical methods that fit heads."""
