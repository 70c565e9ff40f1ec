"""Backbones that read texts: what their files say, and what texts become for them."""
