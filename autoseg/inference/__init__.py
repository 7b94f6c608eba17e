"""From a trained network and an image to a label map: tiling, averaging, export."""

if __name__ != "autoseg.inference":
    raise ImportError("import autoseg.inference, not inference: the link at the top of the project is for readers only")
