"""`graft compare`: two versions on the same examples, or by their reports."""
