"""A package for each task, from its examples to a head and a report; `table` has a row for each."""
