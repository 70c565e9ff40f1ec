"""What streams in: examples with their features, commits, outcomes and events."""
