"""A model's answers, alone and as columns."""
