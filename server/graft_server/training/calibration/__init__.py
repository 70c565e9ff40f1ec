"""Calibration: how sure a head may be, and how novelty is measured."""
