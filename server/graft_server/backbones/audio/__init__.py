"""Backbones that read sound: their description, and the preparation of clips."""
