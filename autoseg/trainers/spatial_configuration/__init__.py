"""The SpatialConfiguration trainer: a localisation network, then a segmentation network inside the box it finds."""
