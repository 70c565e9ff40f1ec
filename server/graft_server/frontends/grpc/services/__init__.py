"""The services of the port, one module each: messages in, nouns to `api`, messages out."""
