"""Layouts: printable, invertible descriptions of how an array is rearranged.

A `Layout` says how one array is made from one or several source arrays. It is
plain data: a few frozen dataclasses that can be printed, compared, checked
against shapes, inverted, composed and simplified. A library's layouts lead
from its own axis order to the canonical one, so the layouts of one library
composed with the inverse of another's lead from the first to the second.

    >>> from common.layouts import Layout, Slice, Transpose
    >>> print(Layout.of("", (32, 96), Transpose((1, 0)), Slice(0, 0, 32)))
    (32, 96) -> transpose -> split[0:32]
"""

from common.layouts.composition import apply as apply
from common.layouts.composition import compose as compose
from common.layouts.composition import inverse as inverse
from common.layouts.composition import invert as invert
from common.layouts.joins import Concatenate as Concatenate
from common.layouts.joins import Stack as Stack
from common.layouts.layout import Layout as Layout
from common.layouts.layout import Source as Source
from common.layouts.model import ModelLayouts as ModelLayouts
from common.layouts.model import NativeArray as NativeArray
from common.layouts.rules import EACH as EACH
from common.layouts.rules import LayoutRule as LayoutRule
from common.layouts.rules import Leaf as Leaf
from common.layouts.rules import Part as Part
from common.layouts.rules import Place as Place
from common.layouts.rules import Role as Role
from common.layouts.rules import Rule as Rule
from common.layouts.rules import Rules as Rules
from common.layouts.rules import each as each
from common.layouts.rules import lift as lift
from common.layouts.rules import of_one_layer as of_one_layer
from common.layouts.rules import resolve as resolve
from common.layouts.simplification import simplify as simplify
from common.layouts.stacks import Stacked as Stacked
from common.layouts.steps import Cast as Cast
from common.layouts.steps import Flip as Flip
from common.layouts.steps import Index as Index
from common.layouts.steps import KeyData as KeyData
from common.layouts.steps import Reshape as Reshape
from common.layouts.steps import Shape as Shape
from common.layouts.steps import Slice as Slice
from common.layouts.steps import Step as Step
from common.layouts.steps import Transpose as Transpose
from common.layouts.steps import WrapKeyData as WrapKeyData
