"""The code in a bundle, which answers without Graft."""
