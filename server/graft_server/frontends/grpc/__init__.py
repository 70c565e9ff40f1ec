"""The contract graft.v1 over gRPC."""
