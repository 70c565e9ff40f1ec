"""Labelled examples in tables: data frames, Arrow tables, splits of data sets, rows as mappings, and data files."""
