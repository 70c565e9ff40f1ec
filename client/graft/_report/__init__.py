"""A version's report: in words, in charts, and as one HTML page."""
