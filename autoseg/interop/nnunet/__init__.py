"""Models of nnU-Net v2 (Isensee et al., Nature Methods 18, 2021): the names of its weights, and folders that its commands predict with."""
