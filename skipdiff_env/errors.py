"""The errors that SkipDiff raises on purpose: one line each, saying what is wrong and what to do."""


class SkipDiffError(ValueError):
    """A request that cannot be carried out; the message says what is wrong, where, and what to do."""
