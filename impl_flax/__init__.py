"""The backend, the models and the layers in Flax NNX."""
