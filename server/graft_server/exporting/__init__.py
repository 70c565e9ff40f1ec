"""From a version to files that need no server, composed in a worker process without torch."""
