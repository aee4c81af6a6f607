"""Names the module that a value was computed in."""

import re

# A path that a module of either library left in the name stack.
PATH = re.compile(r"@([^/()]+)")


def path_of(scope: str) -> str:
    """Returns the path of the innermost module in a name stack."""
    found = PATH.findall(scope)
    return found[-1] if found else ""
