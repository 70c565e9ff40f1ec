"""What is taken out for good: models, versions, and a person's examples."""
