"""Facts about layer classes."""
