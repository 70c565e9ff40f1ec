"""What may be asked of the server, in any protocol: the order of messages, limits, deadlines. No protocol is known."""
