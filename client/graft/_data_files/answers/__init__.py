"""Files of answers: the rows of a data file once more, with what a model says of each."""
