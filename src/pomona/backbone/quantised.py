"""Quantised linear modules: bitsandbytes' 4-bit and 8-bit ones, which a LoRA is trained beside and never folded into.

Axes: I input features, O output features.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pomona.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

_BITS = {"Params4bit": 4, "Int8Params": 8}
_PACKAGES = ("accelerate", "bitsandbytes")


@dataclass(frozen=True)
class Quantization:
    """How a model is quantised while it is loaded. Names and defaults are those of transformers' `BitsAndBytesConfig`.

    Args:
        load_in_4bit, load_in_8bit: which of the two; one is given.
        bnb_4bit_quant_type: the values that 4 bits stand for: `fp4`, or `nf4`, which suits normally distributed weights.
        bnb_4bit_use_double_quant: whether the scales of 4-bit weights are quantised too: 0.4 bits less a weight.
        bnb_4bit_compute_dtype: of products with 4-bit weights: `float32`, `bfloat16` or `float16`; None: that of the model.
        llm_int8_threshold: features of 8-bit products with larger values are multiplied in 16 bits, >= 0.
        llm_int8_skip_modules: modules that are left as they are, by parts of their paths; None: the output head.
        quant_method: `bitsandbytes`, as a `config.json` names it.

    Raises:
        InputError: neither or both of 4 and 8 bits; a threshold below 0.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    load_in_4bit: bool = False
    load_in_8bit: bool = False
    bnb_4bit_quant_type: Literal["fp4", "nf4"] = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: tuple[str, ...] | None = None
    quant_method: Literal["bitsandbytes"] = "bitsandbytes"

    def __post_init__(self) -> None:
        if self.load_in_4bit == self.load_in_8bit:
            raise InputError(
                "give one of load_in_4bit: true and load_in_8bit: true", field="quantization_config", value=asdict(self)
            )
        if not self.llm_int8_threshold >= 0:
            raise InputError("must be at least 0", field="quantization_config.llm_int8_threshold", value=self.llm_int8_threshold)

    def for_transformers(self, dtype: torch.dtype) -> BitsAndBytesConfig:
        """As transformers takes it.

        Args:
            dtype: of the model.

        Raises:
            MissingPackageError: bitsandbytes or accelerate is not installed.
        """
        check_packages("quantization_config")
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=self.load_in_4bit,
            load_in_8bit=self.load_in_8bit,
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=self.bnb_4bit_compute_dtype or dtype,
            llm_int8_threshold=self.llm_int8_threshold,
            llm_int8_skip_modules=None if self.llm_int8_skip_modules is None else list(self.llm_int8_skip_modules),
        )


def check_packages(value: str) -> None:
    """See that what quantised models need is installed, and keep bitsandbytes from telling of every cast.

    Raises:
        MissingPackageError: it is not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"a quantised model needs {' and '.join(missing)}", field="model", value=value, fix="pip install 'pomona[quantised]'"
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def quantised_bits(module: nn.Module) -> int | None:
    """4 or 8, where a module is one of bitsandbytes' linear modules with a quantised weight; else None."""
    if not type(module).__module__.startswith("bitsandbytes."):
        return None
    return _BITS.get(type(module._parameters.get("weight")).__name__)


@torch.no_grad()
def dequantised(module: Any) -> Float[Tensor, "O I"]:
    """The matrix that a quantised module stands for, in float32.

    Args:
        module: one with `quantised_bits`.
    """
    from bitsandbytes import functional

    weight = module.weight
    if quantised_bits(module) == 4:
        # Some CPUs' inference has its own layout of the codes; asking for the state puts the first one back.
        module.state_dict()
        return functional.dequantize_4bit(weight.data, weight.quant_state).float()
    scale_O = module.state.SCB if module.state.SCB is not None else weight.SCB
    return functional.int8_vectorwise_dequant(weight.data, scale_O).float()


def ready_to_train(model: nn.Module) -> None:
    """Make quantised modules pass gradients on to their inputs in every order of passes.

    On a CPU with AVX-512 for bfloat16, bitsandbytes turns the codes of a 4-bit module into another layout in the first pass
    without gradient. From then on the module passes no gradient on, without saying so.
    """
    for module in model.modules():
        if quantised_bits(module) == 4:
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]
