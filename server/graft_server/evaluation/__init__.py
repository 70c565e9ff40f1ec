"""Figures of quality: what predictions are worth against the targets."""
