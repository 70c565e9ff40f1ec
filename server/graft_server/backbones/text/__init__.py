"""Backbones that read texts: their description, and the preparation of texts."""
