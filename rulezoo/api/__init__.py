"""The Python interface: what a script or a notebook calls; `rulezoo` offers its names."""
