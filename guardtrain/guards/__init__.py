"""The guard: calibrated, thresholded for a target, exported, loaded and used."""
