"""Writes the reference pages of the documentation from what they describe: parsers, settings, docstrings, protos."""
