"""Backbones that read sound: decoding, and what clips become for them."""
