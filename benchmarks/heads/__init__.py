"""Benchmarks of the head factory."""
