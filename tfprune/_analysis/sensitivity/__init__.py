"""Which layers can be pruned further than others: one alone is pruned, and the model measured."""
