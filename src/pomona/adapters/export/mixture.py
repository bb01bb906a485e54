"""How PEFT loads adapters of mixtures of experts that were trained with transformers 4, where experts were linear modules.

transformers 5 stores all experts of a layer in one tensor. PEFT 0.21 translates an adapter's single experts by the model type of
the base (`_convert_peft_config_moe`). It loads them exactly for the types below and ignores them silently for any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pomona.adapters.config import read_json_object
from pomona.adapters.experts import SINGLE, expert_of
from pomona.adapters.factors import Adapter

_MIXTRAL = frozenset({"w1", "w2", "w3"})
_QWEN = frozenset({"gate_proj", "up_proj", "down_proj"})
TRANSLATED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("minimax", "minimax_m2", "mixtral"), _MIXTRAL),
    **dict.fromkeys(
        (
            "afmoe",
            "beam",
            "cohere2_moe",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "dots1",
            "ernie4_5_moe",
            "exaone_moe",
            "flex_olmo",
            "glm4_moe",
            "glm4_moe_lite",
            "glm4v_moe",
            "glm_moe_dsa",
            "hunyuan_v1_moe",
            "longcat_flash",
            "mellum",
            "olmoe",
            "qwen3_moe",
            "qwen3_next",
            "qwen3_omni_moe",
            "qwen3_omni_moe_text",
            "qwen3_omni_moe_thinker",
            "solar_open",
        ),
        _QWEN,
    ),
}
"""`model_type` -> the names of an expert's modules, for the models whose single experts PEFT translates (transformers 5.23)."""

_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
_MERGED = "Load it with transformers 4, or add it to the model with --for merged"


def model_type_of(folder: Path) -> str | None:
    """The `model_type` in a model folder's `config.json`, which PEFT uses; None if there is none."""
    return _type(_config(folder))


def single_experts_problem(adapter: Adapter, folder: Path | None) -> str | None:
    """The reason why PEFT would not apply the single experts of a written adapter; None if it would, or if that is unknown.

    Args:
        adapter: the adapter to be written.
        folder: the base model's folder, if it is known.
    """
    singles = [match for path in adapter if (match := SINGLE.fullmatch(path))]
    if folder is None or not (config := _config(folder)):
        return None
    if singles and _type(config) is not None:
        names = TRANSLATED.get(str(_type(config)))
        if names is None or singles[0]["name"] not in names:
            return (
                f"adapts single experts ({singles[0][0]}), which transformers 5 keeps in one tensor, and PEFT translates them for "
                f"other models but not for {_type(config)}. {_MERGED}."
            )
    count = next((config[name] for name in _COUNTS if isinstance(config.get(name), int)), None)
    found = max((int(single["number"]) + 1 for single in singles), default=0)
    if isinstance(count, int) and 0 < found < count:
        return f"adapts {found} experts a layer, but {folder} has {count}, and PEFT takes all or none. {_MERGED}."
    stacked = next((expert for path in adapter if (expert := expert_of(path)) and expert.total > 1), None)
    if isinstance(count, int) and stacked is not None and stacked.name.endswith("_proj") and stacked.total != count:
        return f"adapts {stacked.total} experts ({stacked.path}), but {folder} has {count}. Check the base model."
    return None


def single_experts_doubt(adapter: Adapter, folder: Path | None) -> str | None:
    """What is unknown about single experts without the base model's folder."""
    single = next((path for path in adapter if SINGLE.fullmatch(path)), None)
    if single is None or (folder is not None and _type(_config(folder)) is not None):
        return None
    return (
        f"whether peft loads single experts ({single}) on transformers 5 depends on the base model: it does for "
        f"{', '.join(sorted(TRANSLATED))}; give the base model's folder as --base to see"
    )


def _config(folder: Path) -> Mapping[str, object]:
    file = folder / "config.json"
    return read_json_object(file) if file.is_file() else {}


def _type(config: Mapping[str, object]) -> str | None:
    found = config.get("model_type")
    return found if isinstance(found, str) else None
