"""The models, layers and backend in Equinox."""
