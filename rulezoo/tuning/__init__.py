"""Tuning with equal care: as many trials for every rule on every task, the author's default first, chosen on validation.

`study` says how a tuning goes, `space` where it looks, `sampler` what is tried next, and `records` what is kept of it.
"""
