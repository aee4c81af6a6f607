"""Models of a user, in either library, as functions of their arrays."""

from common.native.counters import is_weak_counter as is_weak_counter
from common.native.counters import recast_counter as recast_counter
from common.native.inputs import inputs_of_both as inputs_of_both
from common.native.model import Call as Call
from common.native.model import NativeModel as NativeModel
from common.native.modes import mode_arguments as mode_arguments
