"""Golden vectors: what each layer computes, by NumPy alone.

They are a third view of every layer, beside its row's function and the two
libraries: computed once from the definitions in the papers and in PyTorch's
documentation, by code that shares nothing with the project's own.
`python -m tests.layers.golden` checks them against the definitions.
"""
