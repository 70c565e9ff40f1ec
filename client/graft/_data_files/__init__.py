"""Labelled examples in files and folders."""
