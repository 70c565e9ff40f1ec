"""`graft predict` of a file: each row of it once more, with its answer behind it."""
