"""What fine-tuning gains, and what it costs."""
