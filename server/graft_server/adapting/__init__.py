"""From examples to a head: ingest, selection, calibration, report."""
