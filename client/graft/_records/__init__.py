"""Requests and answers as plain data, and their protobuf forms."""
