"""From features to predictions: which version answers, and with which head."""
