"""Exported graphs: where they are kept, cut in two, and reduced to fewer bits."""
