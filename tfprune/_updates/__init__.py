"""One mask update: the evidence it needs, and the masks it assigns."""
