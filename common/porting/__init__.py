"""Carries the arrays of one model to another.

A plan says where each array goes. As text it has one rule on a line:

    encoder.{i}.attn.qkv -> split -> layer.{i+1}.attention.{q,k,v}_proj
    stack.weight -> unstack -> transpose -> layers.{i}.kernel
    derive(0.5) -> scale
    mask_token -> nothing
    nothing -> head.kernel

- A rule leads from the source to the target; it is inverted if its names are
  those of the other direction. A name is the dotted path of an array or of a
  module. Steps act on a module's arrays in PyTorch's axis order, since the
  types of its layers are known, and on an array in its own axis order.
- Without a step, the types of the layers say how an array is rearranged.
  `copy` leaves the axis order alone.
- `{i}`, `{i+1}` and `{i=0..3}` stand for an index, and `{q,k,v}` for a word.
  Words pair in order. A placeholder that only one side has is taken apart by
  `split` or `unstack`, and put together by `concatenate` or `stack`.
- The other steps are `transpose`, `transpose(2, 0, 1)`, `reshape(4, -1)`,
  `flip(0)`, `slice(axis, start, stop)`, `index(axis, i)`, `divide(0.1)`,
  `multiply(0.1)`, `cast`, `key_data` and `wrap_key_data`.
- Parts that are treated differently are in brackets:
  `[a; b -> transpose] -> concatenate -> c`.
- A source is ignored and a target is kept with `nothing`. A name with spaces
  or brackets is in double quotes. Lines that start with `#` are comments.
"""

from common.porting.arrays import ArrayInfo as ArrayInfo
from common.porting.functions import plan_port as plan_port
from common.porting.functions import port as port
from common.porting.plan import Plan as Plan
from common.porting.registration import register_layer as register_layer
from common.porting.registration import register_stack as register_stack
from common.porting.words import concatenate as concatenate
from common.porting.words import derive as derive
from common.porting.words import reshape as reshape
from common.porting.words import split as split
from common.porting.words import stack as stack
from common.porting.words import transpose as transpose
from common.porting.words import unstack as unstack
