"""What `graft adapt` goes on from, is fed with, and does when it is stopped."""
