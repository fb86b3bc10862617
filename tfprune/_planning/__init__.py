"""What is pruned, by which method, and why the rest is not: decided before anything is made."""
