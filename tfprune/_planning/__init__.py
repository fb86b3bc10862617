"""The plan: weights to prune, their methods, and reasons to keep others; made before wrapping."""
