"""Mask updates: the evidence they need, and the masks they assign."""
