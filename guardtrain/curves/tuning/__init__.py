"""Hyper-parameter search: a space, an Optuna study that many processes may work on, and trials scored as banks."""
