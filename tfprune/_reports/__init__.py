"""What a model holds and what it costs."""
