"""Heads are trained here: many of one kind at the same time, or solved in closed form."""
