"""Training: the plain Trainer, its parts, and the trainers that differ from it."""

if __name__ != "autoseg.trainers":
    raise ImportError("import autoseg.trainers, not trainers: the link at the top of the project is for readers only")

TRAINERS = {
    "Trainer": "autoseg.trainers.trainer:Trainer",
    "CascadeTrainer": "autoseg.trainers.cascade.trainer:CascadeTrainer",
    "AdversarialTrainer": "autoseg.trainers.adversarial:AdversarialTrainer",
    "PyramidTrainer": "autoseg.trainers.pyramid:PyramidTrainer",
    "SpatialConfigurationTrainer": "autoseg.trainers.spatial_configuration.trainer:SpatialConfigurationTrainer",
}
"""Name to class; ``module:Class`` works too without an entry here."""
