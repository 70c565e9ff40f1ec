"""What an adaptation tells, and what became of what it was given."""
