"""Jobs in processes beside the server."""
