"""Claims put to the test: each is a study whose protocol and verdict rule were written down before it was run.

`rulezoo.claims.design` says what a claim is, `catalogue` lists them, `running` carries them out as ordinary runs in a
store, `evidence` finds those runs again, the modules of the criteria (`alignment`, `growth`, `advantage`, `standing`,
`not_worse`) turn them into numbers and a verdict, and `report` and `figures` write the page.
"""
