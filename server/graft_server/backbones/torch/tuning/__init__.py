"""Tuning: `job` is what workers run, `loop` trains, `tunable` is the model, the others are what these work with."""
