"""Stands for a package that a real environment of Open-Instruct has."""
