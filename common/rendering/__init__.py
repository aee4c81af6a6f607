"""Tables, plots, JSON files, progress bars and HTML pages.

This package knows nothing of what it shows: the packages that measure
something describe their tables and plots with the types of this one.
"""
