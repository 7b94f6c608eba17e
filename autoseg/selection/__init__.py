"""Which model, or average of models, segments which organ: candidates, scores, evidence, rules, calibration, post-processing."""
