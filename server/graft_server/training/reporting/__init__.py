"""What a person should know of a version: figures, data, learning curves."""
