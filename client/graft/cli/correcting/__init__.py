"""Correcting a version's examples: edited lists, and the dialogue of `graft review`."""
