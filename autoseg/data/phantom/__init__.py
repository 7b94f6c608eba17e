"""A phantom of the abdomen: the built-in example data."""
