"""lm-evaluation-harness loads an exported adapter and computes what Pomona computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TARGETS, save_tiny_model, tiny_adapter, tiny_backbone

from pomona.adapters import Adapter, write_adapter
from pomona.backbone.attach import attached

CONTEXT = "Return the sum of all values in the list."
CONTINUATIONS = (" Raise an error.", " Keep the order of the rows, and fail if 東京 is missing.")

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def adapter() -> Adapter:
    return tiny_adapter(tiny_backbone(), seed=5, targets=TARGETS["llama"])


@pytest.fixture
def harness(tmp_path: Path, adapter: Adapter) -> Any:
    """The harness's model, of the base's folder and the adapter's."""
    from lm_eval.models import huggingface

    load: Any = huggingface.HFLM
    save_tiny_model(tmp_path / "model")
    write_adapter(adapter, tmp_path / "adapter")
    return load(pretrained=str(tmp_path / "model"), peft=str(tmp_path / "adapter"), device="cpu", dtype="float32", batch_size=2)


def test_logits_and_loglikelihoods_are_those_of_the_attached_adapter(harness: Any, adapter: Adapter) -> None:
    from lm_eval.api.instance import Instance

    backbone = tiny_backbone()
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=(CONTEXT, text), idx=index)
        for index, text in enumerate(CONTINUATIONS)
    ]
    likelihoods = harness.loglikelihood(requests, disable_tqdm=True)
    start = len(backbone.tokenizer(CONTEXT)["input_ids"])
    for text, (likelihood, is_greedy) in zip(CONTINUATIONS, likelihoods, strict=True):
        tokens = backbone.tokenizer(CONTEXT + text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            base = backbone.model(tokens).logits
            with attached(backbone, [adapter]):
                ours = backbone.model(tokens).logits
        assert (harness._model_call(tokens) - ours).abs().max() < 1e-4
        assert (base - ours).abs().max() > 0.1  # the adapter matters
        of_next = ours[0, start - 1 : -1].log_softmax(-1)
        assert likelihood == pytest.approx(of_next.gather(1, tokens[0, start:, None]).sum().item(), abs=1e-4)
        assert is_greedy == torch.equal(of_next.argmax(-1), tokens[0, start:])
