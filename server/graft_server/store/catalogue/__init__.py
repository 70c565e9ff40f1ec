"""The catalogue of models, versions and aliases."""
