"""Models of a user, in either library, as functions of their arrays."""

from common.native.inputs import inputs_of_both as inputs_of_both
from common.native.model import Call as Call
from common.native.model import NativeModel as NativeModel
from common.native.modes import mode_arguments as mode_arguments
