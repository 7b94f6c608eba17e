"""The coarse-to-fine cascade: out-of-fold predictions of the first stage, candidate regions, its trainer."""
