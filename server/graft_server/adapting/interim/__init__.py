"""The head that learns while examples stream in."""
