"""The board as a site of static files, which works from disk without a network.

`rulezoo.site.build` makes the files, as a value; `rulezoo.site.serve` shows a folder of them on this machine. Nothing
else of rulezoo imports this package, and its imports are heavy.
"""
