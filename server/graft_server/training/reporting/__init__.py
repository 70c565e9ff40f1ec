"""The parts of a version's report: warnings, the state of the data, learning curves."""
