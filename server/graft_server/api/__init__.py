"""The server's calls, independent of any protocol: the order of messages, limits, deadlines."""
