"""Scores, tables and the choice of the best model for each organ."""

if __name__ != "autoseg.evaluation":
    raise ImportError("import autoseg.evaluation, not evaluation: the link at the top of the project is for readers only")
