"""Whole experiments: features, classes, figures."""
