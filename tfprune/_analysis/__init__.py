"""Analyses of whole models: sensitivity, and comparison of two."""
