"""Tracking: what a command made, from what, and how good it is, told to W&B, MLflow or TensorBoard; CSV always."""
