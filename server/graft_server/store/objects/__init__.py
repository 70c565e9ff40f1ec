"""Objects that are created once and never changed, in a folder or in a bucket."""
