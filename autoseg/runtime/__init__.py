"""Infrastructure of runs: workspace, locks, serialization, migration of old files, checkpoints, registry, hardware, worker pool."""
