"""Runs collected from any folders: one tidy table, ranked with intervals over seeds."""
