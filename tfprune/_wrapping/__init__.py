"""Wrappers and the masks that they own."""
