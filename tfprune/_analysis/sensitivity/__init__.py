"""Finds layers that can be pruned further than others, by pruning one at a time."""
