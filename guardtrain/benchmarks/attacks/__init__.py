"""Attacks on guards: adversarial pixels through encoder and head, what images go through every day, robust accuracy.

Which cheap defences helped, and which did not, with figures: docs/pages/defences.md.
"""
