"""Weights: the project's own format, and rule tables from other projects' parameter names."""
