"""Protobuf to the domain and back, and nothing else. The only part that knows gRPC."""
