"""Where training runs: `job` has the interface, `local` runs jobs in processes beside the server."""
