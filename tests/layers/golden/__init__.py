"""Golden vectors: the results of each layer, computed in NumPy.

They are independent of the definitions in `common.layers` and of both
libraries. They were computed once, from the formulas in papers and in
PyTorch's documentation, by code that shares nothing with the rest of the
project. `python -m tests.layers.golden` recomputes and compares them.
"""
