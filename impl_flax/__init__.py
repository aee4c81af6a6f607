"""The models, layers and backend in Flax NNX."""
