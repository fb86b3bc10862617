"""The plan of what to prune, by which method, and why not: made before any wrapper exists."""
