"""The leaderboard as a report: static pages that work from disk, without a network.

`rulezoo.report.build` makes the files, as a value; `rulezoo.report.serve` shows a folder of them on this machine. Nothing
else of rulezoo imports this package, and its imports are heavy.
"""
