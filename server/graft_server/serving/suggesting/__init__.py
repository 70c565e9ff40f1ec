"""What to label next: which candidates' labels would teach a version most."""
