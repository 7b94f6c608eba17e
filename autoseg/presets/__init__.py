"""The papers' experiments as settings, one file a paper."""
