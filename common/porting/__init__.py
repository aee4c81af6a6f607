"""Carries the arrays of one model to another."""

from common.porting.arrays import ArrayInfo as ArrayInfo
from common.porting.plan import Plan as Plan
