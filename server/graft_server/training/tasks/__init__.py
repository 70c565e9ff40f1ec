"""One module for each task: from its training set to a head and a report."""
