"""The models, one file for each, named after its spec."""
