"""One of the labels: its examples, the head that tells the classes apart, and its report."""
