"""File formats: one file each says how it is written, and how its runtime opens and runs it."""
