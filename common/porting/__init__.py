"""Carries the arrays of one model to another."""

from common.porting.arrays import ArrayInfo as ArrayInfo
from common.porting.functions import plan_port as plan_port
from common.porting.functions import port as port
from common.porting.plan import Plan as Plan
from common.porting.registration import register_layer as register_layer
