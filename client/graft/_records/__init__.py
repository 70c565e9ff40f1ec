"""What goes to a server and what comes from it, as plain data, and their protobuf forms."""
