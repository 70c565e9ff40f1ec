"""The nouns of the service: plain data that every layer may know, and the errors."""
