"""A number: examples, the head that answers with a value and an interval, and its report."""
