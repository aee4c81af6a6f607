"""Where stock NNX layers part from the meaning: one function a row.

NNX changes its Variables in place, so many demonstrations call a layer and
then look at what it holds. `common.differences` holds the rows.
"""
