"""Backbones that read images: decoding, and what images become for them."""
