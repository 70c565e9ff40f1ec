"""Figures of quality: predictions measured against the targets."""
