"""The definition of each task as plain data: one module and one row of `table` for each task."""
