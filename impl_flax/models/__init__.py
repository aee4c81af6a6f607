"""The models, one file each, by the name of their spec."""
