"""Lists of stored examples in files that a person edits and sends back: written, known again, and read."""
