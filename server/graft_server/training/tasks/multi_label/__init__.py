"""Any number of the labels: examples, the head that decides on each label, and its report."""
