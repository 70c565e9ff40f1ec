"""Backbones that read images: their description, and the preparation of images."""
