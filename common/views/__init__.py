"""Live views: a model of one library as an object of the other.

A `Part` is what a view knows of the library that it shows, so neither
library's package imports the other.
"""

from common.views.functions import as_equinox as as_equinox
from common.views.functions import as_nnx as as_nnx
from common.views.members import members as members
from common.views.part import Group as Group
from common.views.part import Leaf as Leaf
from common.views.part import Part as Part
from common.views.part import walk as walk
