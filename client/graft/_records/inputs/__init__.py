"""What callers hand in: examples, inputs and targets, whatever holds them."""
