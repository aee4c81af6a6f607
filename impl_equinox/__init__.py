"""The backend, the models and the layers in Equinox."""
