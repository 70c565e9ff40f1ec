"""From a commit to a served version."""
