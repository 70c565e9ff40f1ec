"""Which models, versions and aliases there are."""
