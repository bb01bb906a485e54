"""What a training step needs of the machine, behind one interface: one file for each engine that runs it."""

from pomona.engines.accelerate import Accelerate, asked_for
from pomona.engines.base import Engine
from pomona.engines.native import NATIVE, Native

__all__ = ["NATIVE", "Accelerate", "Engine", "Native", "asked_for"]
