"""The interim head of single labels: how it learns, what it knows of classes not seen yet, and how sure it is."""
