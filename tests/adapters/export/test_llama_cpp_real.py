"""Exports for llama.cpp, loaded by a real llama.cpp (`llama-cpp-python`, not a dependency: the tests are skipped without it)."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.adapters.export.tiny_models import MODELS, TOKENS, build, transformers_logits, update, write_gguf
from torch import Tensor

from pomona.adapters import Adapter
from pomona.adapters.export import Base, export_llama_cpp, read_base
from pomona.adapters.export import llama_cpp as exporter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

llama_cpp = pytest.importorskip("llama_cpp")

F32_CACHE: dict[str, Any] = {"type_k": 0, "type_v": 0}
BOUND = 1e-3


def llama_logits(model: Path, tokens: Sequence[int], lora: Path | None = None) -> Tensor:
    """Logits [T, V] of a real llama.cpp."""
    runner = llama_cpp.Llama(
        str(model), lora_path=lora and str(lora), n_ctx=64, n_threads=1, logits_all=True, verbose=False, **F32_CACHE
    )
    try:
        runner.eval(list(tokens))
        return torch.from_numpy(runner.scores[: len(tokens)].copy())
    finally:
        runner.close()
        del runner
        gc.collect()


def exported(model: PreTrainedModel, adapter: Adapter, folder: Path) -> Path:
    model.config.save_pretrained(folder / "base")
    export_llama_cpp(adapter, folder / "lora.gguf", read_base(folder / "base"))
    return folder / "lora.gguf"


def change_error(found: Tensor, expected: Tensor, base: Tensor) -> float:
    error = float((found - expected).norm() / (expected - base).norm())
    print(f"relative error of the change in the logits: {error:.2e}")
    return error


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_answers_as_transformers(name: str, tmp_path: Path) -> None:
    model = build(name)
    file = write_gguf(name, model, tmp_path / "base.gguf")
    base = transformers_logits(model, TOKENS)
    torch.testing.assert_close(llama_logits(file, TOKENS), base, rtol=1e-3, atol=2e-3)
    ends = ("_proj", "c_attn", "c_proj", "c_fc")
    adapter = update(model, ends)
    assert len(adapter) >= 8
    expected = transformers_logits(model, TOKENS, adapter)
    assert float((expected - base).norm()) > 0.2 * float(base.norm())
    found = llama_logits(file, TOKENS, exported(model, adapter, tmp_path))
    assert change_error(found, expected, base) < BOUND


def test_rows_that_are_not_permuted_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    file = write_gguf("llama", model, tmp_path / "base.gguf")
    base = transformers_logits(model, TOKENS)
    adapter = update(model, ("q_proj", "k_proj"))
    expected = transformers_logits(model, TOKENS, adapter)
    monkeypatch.setattr(exporter, "permuted", lambda rows, heads: rows)
    found = llama_logits(file, TOKENS, exported(model, adapter, tmp_path))
    assert change_error(found, expected, base) > 0.3


def test_head_and_embedding_of_a_model_that_does_not_tie_them(tmp_path: Path) -> None:
    model = build("llama")
    file = write_gguf("llama", model, tmp_path / "base.gguf")
    base = transformers_logits(model, TOKENS)
    for end in ("embed_tokens", "lm_head"):
        adapter = update(model, (end,))
        expected = transformers_logits(model, TOKENS, adapter)
        folder = tmp_path / end
        folder.mkdir()
        found = llama_logits(file, TOKENS, exported(model, adapter, folder))
        assert change_error(found, expected, base) < BOUND, end


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 5e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_files(dtype: torch.dtype, bound: float, tmp_path: Path) -> None:
    model = build("qwen2")
    file = write_gguf("qwen2", model, tmp_path / "base.gguf")
    base = transformers_logits(model, TOKENS)
    adapter = update(model, ("q_proj", "v_proj", "down_proj"))
    export_llama_cpp(adapter, tmp_path / "lora.gguf", read_base(file), dtype=dtype)
    found = llama_logits(file, TOKENS, tmp_path / "lora.gguf")
    assert change_error(found, transformers_logits(model, TOKENS, adapter), base) < bound


def test_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GGUF is quantised and the converted copy is not: what is compared is the change that the adapter makes."""
    from pomona.backbone.embedded import PACKAGE
    from pomona.backbone.load import load_backbone

    package = importlib.util.find_spec(PACKAGE)
    assert package is not None
    assert package.origin is not None
    file = next(Path(package.origin).parent.glob("*.gguf"))
    backbone = load_backbone("embedded", device="cpu")
    tokens: list[int] = backbone.tokenizer("The capital of France is Paris, and the capital of Italy is")["input_ids"]  # pyright: ignore[reportAssignmentType]
    # In every layer the heads' rows count, and nothing else changes: the test that the order of the rows can fail.
    adapter = update(backbone.model, ("self_attn.q_proj", "self_attn.k_proj"), size=0.2)
    before, after = transformers_logits(backbone.model, tokens), transformers_logits(backbone.model, tokens, adapter)
    plain = llama_logits(file, tokens)

    def agreement(name: str, base: Base) -> tuple[float, float]:
        """Correlation of the changes in the logits, and share of positions with the same most likely token."""
        export_llama_cpp(adapter, tmp_path / name, base)
        found = llama_logits(file, tokens, tmp_path / name)
        changes = torch.stack([(found - plain).flatten(), (after - before).flatten()])
        return float(torch.corrcoef(changes)[0, 1]), float((found.argmax(1) == after.argmax(1)).float().mean())

    base = read_base(file)
    assert (base.name, base.layers, base.heads, base.key_heads, base.tied) == ("llama", 30, 9, 3, True)
    right = agreement("right.gguf", base)
    monkeypatch.setattr(exporter, "permuted", lambda rows, heads: rows)
    wrong = agreement("wrong.gguf", base)
    print(f"(correlation of the change, same top token): {right}; with rows in the wrong order {wrong}")
    assert int(before[-1].argmax()) != int(after[-1].argmax())  # the adapter is seen in what the model says
    assert right[0] > 0.98
    assert right[1] > 0.8
    assert wrong[0] < 0.4

    runner = llama_cpp.Llama(str(file), lora_path=str(tmp_path / "right.gguf"), n_ctx=64, n_threads=2, verbose=False)
    try:
        first = next(iter(runner.generate(tokens, temp=0.0)))
    finally:
        runner.close()
    assert first == int(after[-1].argmax())
