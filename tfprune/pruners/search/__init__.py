"""Searches: which layers give how much, found by evaluating candidates."""
