"""Datasets and images: reading and writing, their checks and repair, labels, images, DICOM."""
