"""Figures: curves, classes, filters, timelines."""
