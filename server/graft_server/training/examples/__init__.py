"""From stored rows to the arrays that heads are trained on, and to their folds."""
