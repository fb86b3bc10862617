"""Translates tfmot's arguments to patterns."""

from tfprune import patterns
from tfprune._base import validation as check


def pattern_of(block_size, block_pooling_type, sparsity_m_by_n, pattern):
    """Returns the pattern given by tfmot's three arguments or by `pattern`."""
    mend = "Pass only one of them."
    block_size = tuple(block_size) if isinstance(block_size, list) else block_size
    if not isinstance(block_size, tuple):
        raise TypeError(
            check.message(
                "`block_size` to be a pair", f"block_size={block_size!r:.80}", "Use (1, 1)."
            )
        )
    given = [
        name
        for name, present in (
            ("block_size", block_size != (1, 1)),
            ("sparsity_m_by_n", sparsity_m_by_n is not None),
            ("pattern", pattern is not None),
        )
        if present
    ]
    if len(given) > 1:
        raise ValueError(check.message("one pattern", f"{' and '.join(given)} together", mend))
    block = patterns.Block(block_size, block_pooling_type)
    if sparsity_m_by_n is not None:
        if not isinstance(sparsity_m_by_n, (tuple, list)) or len(sparsity_m_by_n) != 2:
            raise TypeError(
                check.message(
                    "`sparsity_m_by_n` to be a pair",
                    f"sparsity_m_by_n={sparsity_m_by_n!r}",
                    "(2, 4) means 2 zeros in every 4 weights.",
                )
            )
        return patterns.NOfM(*sparsity_m_by_n)
    if "block_size" in given:
        return block
    return patterns.get(pattern)
