"""What a merge takes over from its sources' configs, PEFT being the judge of whether it loads."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.adapters.builders import peft_config, random_adapter, write_folder
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedModel, T5Config, T5ForConditionalGeneration

from pomona.adapters import Adapter, check_adapters, read_adapter, write_adapter
from pomona.adapters.export import compress, export_peft
from pomona.adapters.zero_components import without_zero_components
from pomona.merging import merge

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def written(adapter: Adapter, path: Path) -> dict[str, Any]:
    write_adapter(adapter, path)
    return json.loads((path / "adapter_config.json").read_text())


def t5() -> PreTrainedModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**shape)).eval()


def answer(model: Any) -> Tensor:
    ids = torch.tensor([[3, 17, 4, 1]])
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids).logits


def test_a_merged_t5_adapter_loads_as_what_it_is(tmp_path: Path) -> None:
    model = t5()
    model.save_pretrained(str(tmp_path / "base"))
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q", "v"], init_lora_weights=False, task_type="SEQ_2_SEQ_LM")
    adapted = peft.get_peft_model(copy.deepcopy(model), config).eval()
    adapted.save_pretrained(str(tmp_path / "a"))
    adapter = Adapter(read_adapter(tmp_path / "a").factors, str(tmp_path / "base"), read_adapter(tmp_path / "a").provenance)
    for place, made in enumerate((merge([adapter], "concat"), compress(adapter, 2)[0], without_zero_components(adapter))):
        folder = tmp_path / f"made-{place}"
        assert written(made, folder)["task_type"] == "SEQ_2_SEQ_LM"
    export_peft(adapter, tmp_path / "exported")
    assert json.loads((tmp_path / "exported" / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    loaded = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(str(tmp_path / "made-0")).eval()
    assert (answer(adapted) - answer(model)).abs().max() > 1e-2
    torch.testing.assert_close(answer(loaded), answer(adapted), rtol=1e-5, atol=1e-5)


def test_an_encoder_without_a_task_keeps_its_class(tmp_path: Path) -> None:
    """As a causal model PEFT could not even open it."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    model = BertModel(BertConfig(**shape, num_attention_heads=2)).eval()
    config = peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    peft.get_peft_model(copy.deepcopy(model), config).save_pretrained(str(tmp_path / "a"))
    config = written(merge([read_adapter(tmp_path / "a")], "concat"), tmp_path / "b")
    assert config["task_type"] is None
    assert config["auto_mapping"] == {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"}
    assert isinstance(peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "b")), peft.PeftModel)


def test_revisions_travel_and_those_that_differ_are_told(tmp_path: Path) -> None:
    for name, changes in {"a": {"revision": "v1"}, "b": {"revision": "v2"}, "c": {}, "d": {"revision": "main"}}.items():
        write_folder(tmp_path / name, config=peft_config(**changes))
    a, b, c, d = (read_adapter(tmp_path / name) for name in "abcd")
    assert written(merge([a], "concat"), tmp_path / "m1")["revision"] == "v1"
    merged = merge([a, b], "concat")
    assert written(merged, tmp_path / "m2")["revision"] == "v1"
    assert f"{tmp_path}/b was trained on revision 'v2' of base, but {tmp_path}/a on 'v1', which a merge takes over" in str(
        merged.provenance["warnings"]
    )
    assert "revision" in str(check_adapters([tmp_path / "a", tmp_path / "b"]))
    assert merge([c, d], "concat").provenance["warnings"] == []  # nothing and `main` are one revision
    assert "revision" not in written(merge([c], "concat"), tmp_path / "m3")


def test_different_tasks_are_reported_and_the_first_is_used(tmp_path: Path) -> None:
    tasks = {"a": None, "b": "SEQ_2_SEQ_LM", "c": "CAUSAL_LM"}
    for name, task in tasks.items():
        write_folder(tmp_path / name, config=peft_config(task_type=task))
    merged = merge([read_adapter(tmp_path / name) for name in tasks], "concat")
    assert merged.provenance["task_type"] == "SEQ_2_SEQ_LM"
    assert [one for one in merged.provenance["warnings"] if "task" in one] == [  # type: ignore[attr-defined]
        f"{tmp_path}/c is for the task CAUSAL_LM, but {tmp_path}/b for SEQ_2_SEQ_LM, which a merge takes over"
    ]
    assert written(merge([random_adapter(0)], "concat"), tmp_path / "m")["task_type"] == "CAUSAL_LM"


def test_a_task_that_peft_does_not_know_is_left_out_and_told(tmp_path: Path) -> None:
    adapter = read_adapter(write_folder(tmp_path / "a", config=peft_config(task_type="CAUSAL")))
    assert adapter.provenance["warnings"] == ["task_type 'CAUSAL' is no task that PEFT knows, and is left out of what is written"]
    assert written(adapter, tmp_path / "b")["task_type"] is None
