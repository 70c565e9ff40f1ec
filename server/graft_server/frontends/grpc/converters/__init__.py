"""Protobuf messages to nouns, and nouns to messages."""
