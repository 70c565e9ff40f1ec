"""Which head is best: candidates, and the search among them."""
