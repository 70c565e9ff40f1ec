"""How good a version is: reports, evaluations and comparisons."""
