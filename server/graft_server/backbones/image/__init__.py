"""Backbones that read images: what their files say, and what images become for them."""
