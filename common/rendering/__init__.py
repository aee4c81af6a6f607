"""Tables, plots, JSON, progress bars and pages: how results are shown."""
