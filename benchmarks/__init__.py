"""Benchmarks: our saver and our semantic cache, beside what a user could pick instead.

``python -m benchmarks`` runs everything; ``--only steps --quick`` a part of it.

All contenders of a figure are open at once and take turns round by round, so
that a slow minute of the machine hits each of them; figures are medians over
the rounds, and ratios are medians of each round's own ratio.
"""
