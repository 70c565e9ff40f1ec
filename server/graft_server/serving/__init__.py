"""From features to predictions: finds the version and the head that answer."""
