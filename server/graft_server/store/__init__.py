"""Immutable objects, created once: examples, features, versions, aliases. Start reading at `objects`."""
