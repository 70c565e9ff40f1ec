"""The stored adaptations: examples with their features, commits, outcomes and events."""
