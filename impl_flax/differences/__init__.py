"""Known differences between stock NNX layers and their definitions.

NNX updates its Variables in place, so many demonstrations call a layer and
then read its Variables.
"""
