"""Evaluations of trained networks: which ones are asked for, how they are carried out, and how results are stored."""
