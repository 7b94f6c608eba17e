"""Metrics, comparison of folders, statistics and tables."""

if __name__ != "autoseg.evaluation":
    raise ImportError("import autoseg.evaluation, not evaluation: the link at the top of the project is for readers only")
