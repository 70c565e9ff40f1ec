"""What travels with a bundle: the code that answers without Graft."""
