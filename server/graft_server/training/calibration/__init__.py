"""How sure a head may be: temperatures, thresholds, intervals, and what is unlike the training data."""
