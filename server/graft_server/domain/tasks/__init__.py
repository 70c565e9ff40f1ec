"""What each task is, as plain data: a module for each, and `table` has a row for each."""
