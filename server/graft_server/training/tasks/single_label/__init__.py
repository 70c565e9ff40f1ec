"""One of the labels: its examples, the head that separates the classes, and its report."""
