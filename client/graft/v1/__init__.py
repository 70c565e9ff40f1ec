"""Generated from protos/graft/v1; the one public form of it is `graft` itself."""
