"""Preprocessing: orientation, cropping, normalisation, resampling, storage."""
