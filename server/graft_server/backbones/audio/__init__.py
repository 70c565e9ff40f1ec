"""Backbones that read sound: what their files say, and what clips become for them."""
