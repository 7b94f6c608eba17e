"""Learned ensembles: models on top of trained models."""
