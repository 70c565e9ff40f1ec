"""What needs torch: loading and exporting backbones. Imported by worker processes only."""
