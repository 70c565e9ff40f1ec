"""Protobuf messages to the domain's types, and back."""
