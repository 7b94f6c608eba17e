"""Random transforms of patches."""
