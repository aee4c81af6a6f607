"""Models of a user, in either library, as functions of their arrays."""

from common.native.model import Call as Call
from common.native.model import NativeModel as NativeModel
from common.native.modes import mode_arguments as mode_arguments
