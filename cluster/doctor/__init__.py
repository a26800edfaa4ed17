"""`python -m cluster.doctor`: an installation checked end to end, one line a check, and what to do about each that fails.

Nothing here needs a valid config, and nothing that a broken installation could lack is imported before its check.
"""
