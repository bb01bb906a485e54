"""What a training step needs of the machine, behind one interface: one file for each engine that runs it."""

from pomona.engines.base import Engine
from pomona.engines.native import NATIVE, Native

__all__ = ["NATIVE", "Engine", "Native"]
