"""From a writer's stream to durable examples with features."""
