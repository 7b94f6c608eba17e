"""Planning: fingerprint, spacing, patch size, memory, splits and budget."""

if __name__ != "autoseg.planners":
    raise ImportError("import autoseg.planners, not planners: the link at the top of the project is for readers only")
