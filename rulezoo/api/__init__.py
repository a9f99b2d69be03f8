"""The Python interface: runs, results, and the calls that make them; `rulezoo` loads its names when they are used."""
