"""From files to arrays and back: datasets, their checks and repair, labels, images, DICOM."""
