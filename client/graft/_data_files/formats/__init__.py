"""What a data file holds, by its format: from bytes to rows of named values."""
