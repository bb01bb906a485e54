"""Architecture x feature x verb, judged by PEFT: the table docs/reference/architectures.md.

Each cell makes adapters of one kind for a tiny model of one architecture, runs a verb on them, and compares the result with PEFT's
result on the original files: logits, and every weight after merging. `python -m benchmarks architectures` writes the table;
`tests/conformance/test_architectures.py` checks the cells.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from benchmarks.tiny_architectures import ARCHITECTURES, VOCABULARY, Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOUND = 1e-4
"""Largest difference from PEFT, as a share of the adapter's effect."""
WRONG_INPUT = 2
"""The exit code of a refusal; any other failure is a fault."""
PAGE = Path("docs/reference/architectures.md")
IDS = torch.tensor([[3, 17, 4, 44, 9, 1, 250, 60]])
WIDTH = 0.2
"""Deviation of the adapters' factors."""
LEAST_EFFECT = 0.01
EXACT, REFUSED, UNJUDGED, WRONG = "exact", "refused", "PEFT loads none", "WRONG"


@dataclass(frozen=True)
class Cell:
    """What a verb did with adapters of one kind.

    Args:
        result: `exact`, `refused`, `PEFT loads none` where the verb does it and PEFT cannot load the original, or `WRONG`.
        told: the refusal, or how far from PEFT.
    """

    result: str
    told: str = ""


@dataclass(frozen=True)
class Expected:
    """What PEFT makes of adapters: logits, and tensors by name (none where they are not compared)."""

    logits: Tensor
    weights: Mapping[str, Tensor]


@dataclass
class Bench:
    """One architecture's model, on disk and in memory, and two adapters of one kind.

    Args:
        architecture: how the model was built.
        model: the base, which nothing changes.
        base: its folder.
        one, two: PEFT folders.
        trained: the same two with the names of today, which PEFT applies whole.
        folder: where verbs write.
        weighs: whether weights are compared, and not logits alone.
        conversion: options of `convert`.
        with_base: options of `merge` and `export --for peft` where names tell nothing without the base.
        known: what `expected` has found.
    """

    architecture: Architecture
    model: PreTrainedModel
    base: Path
    one: Path
    two: Path
    trained: tuple[Path, Path]
    folder: Path
    weighs: bool
    conversion: tuple[str, ...] = ()
    with_base: tuple[str, ...] = ()
    known: dict[tuple[Path, ...], Expected] = field(default_factory=dict)

    def expected(self, *adapters: Path) -> Expected:
        """What PEFT makes of adapters, asked once: several verbs are compared with it."""
        if adapters not in self.known:
            self.known[adapters] = self._asked(*adapters)
        return self.known[adapters]

    def _asked(self, *adapters: Path) -> Expected:
        """What PEFT makes of adapters that are active together: logits unmerged, and the weights that it merges one at a time.

        Weights are left out where the adapters touch a tied pair: PEFT merges both updates into the one tensor, while its
        forward pass keeps them apart.
        """
        import peft

        first, *others = adapters
        model: Any = peft.PeftModel.from_pretrained(copy.deepcopy(self.model), str(first), adapter_name="0")
        for place, other in enumerate(others, start=1):
            model.load_adapter(str(other), adapter_name=str(place))
        if others:
            model.base_model.set_adapter([str(place) for place in range(len(adapters))])
        logits = _logits(self.architecture, model.eval())
        if not self.weighs:
            return Expected(logits, {})
        base = self.model.state_dict()
        weights = {name: tensor.clone() for name, tensor in base.items()}
        for adapter in adapters:
            one: Any = peft.PeftModel.from_pretrained(copy.deepcopy(self.model), str(adapter)).merge_and_unload()
            for name, tensor in one.state_dict().items():
                weights[name] += tensor - base[name]
        return Expected(logits, weights)

    def compare(self, found: PreTrainedModel, expected: Expected) -> Cell:
        """A model's logits and weights against PEFT's, as shares of the adapters' effect."""
        before = _logits(self.architecture, self.model)
        effect = float((expected.logits - before).abs().max())
        if effect < LEAST_EFFECT:
            return Cell(UNJUDGED, f"PEFT changes the logits by {effect:.1e} only")
        error = float((_logits(self.architecture, found) - expected.logits).abs().max()) / effect
        base = self.model.state_dict()
        ours = {name.replace(".base.", "."): tensor for name, tensor in found.state_dict().items()}  # of an adapted module
        changes = {name: float((tensor - base[name]).norm()) for name, tensor in expected.weights.items()}
        for name, change in changes.items():
            share = float((ours[name] - expected.weights[name]).norm()) / max(change, 1e-3 * max(changes.values()))
            error = max(error, share)
        return Cell(EXACT if error < BOUND else WRONG, f"{error:.1e} of the effect")

    def by_peft(self, adapter: Path) -> PreTrainedModel:
        """The base with an adapter that a verb wrote, as PEFT loads it; merged where weights are compared."""
        import peft

        model: Any = peft.PeftModel.from_pretrained(copy.deepcopy(self.model), str(adapter)).eval()
        return model.merge_and_unload() if self.weighs else model


@torch.no_grad()
def _logits(architecture: Architecture, model: PreTrainedModel) -> Tensor:
    extra = {} if architecture.causal else {"decoder_input_ids": IDS}
    return model(input_ids=IDS, **extra).logits


def _lora(model: PreTrainedModel, folder: Path, seed: int, **options: Any) -> None:
    """A LoRA with random factors, saved by PEFT."""
    import peft

    settings = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear"} | options
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            whole = "lora_A" not in name and "lora_B" not in name and "lora_embedding" not in name
            parameter.data = parameter.data * (1 + 0.3 * noise) if whole else noise * WIDTH
    wrapped.save_pretrained(str(folder))


def _ends(model: PreTrainedModel) -> dict[str, Any]:
    names = {id(module): path for path, module in model.named_modules()}
    embedding, head = names[id(model.get_input_embeddings())], names[id(model.get_output_embeddings())]
    return {"target_modules": [embedding, head]}


def _varied(model: PreTrainedModel) -> dict[str, Any]:
    return {"use_rslora": True, "rank_pattern": {r".*\.1\..*": 2}, "alpha_pattern": {r".*\.0\..*": 3}}


def _heads(model: PreTrainedModel) -> dict[str, Any]:
    names = {id(module): path for path, module in model.named_modules()}
    return {"modules_to_save": [names[id(model.get_output_embeddings())].rpartition(".")[2]]}


def _parameters(architecture: Architecture) -> Callable[[PreTrainedModel], dict[str, Any]]:
    return lambda model: {"target_modules": ["q_proj", "v_proj"], "target_parameters": list(architecture.parameters)}


def _rewrite(folder: Path, rename: Callable[[str], str]) -> None:
    """Give every tensor of a saved adapter another name."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({rename(name): tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def _in_old_spelling(architecture: Architecture, folder: Path) -> None:
    """As transformers 4 and PEFT of its time saved it: old paths, modules named by their last part."""

    def rename(key: str) -> str:
        path = key.removeprefix("base_model.model.")
        for new, old in architecture.old_prefixes.items():
            if path.startswith(new):
                return f"base_model.model.{old}{path.removeprefix(new)}"
        return key

    _rewrite(folder, rename)


def _one_by_one(architecture: Architecture, model: PreTrainedModel, folder: Path, seed: int) -> None:
    """Adapters of single experts, as transformers 4 had them: no class of transformers 5 can save them."""
    from safetensors.torch import save_file

    names, old = architecture.single_experts, architecture.experts_in
    hidden = int(architecture.fields["hidden_size"])
    inner = int(architecture.fields.get("moe_intermediate_size", architecture.fields["intermediate_size"]))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        for expert in range(4):
            for name in names:
                rows, columns = (hidden, inner) if name in ("down_proj", "w2") else (inner, hidden)
                key = f"base_model.model.model.layers.{layer}.{old}.experts.{expert}.{name}"
                tensors[f"{key}.lora_A.weight"] = torch.randn(4, columns, generator=generator) * WIDTH
                tensors[f"{key}.lora_B.weight"] = torch.randn(rows, 4, generator=generator) * WIDTH
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": list(names), "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@dataclass(frozen=True)
class Feature:
    """A kind of adapter.

    Args:
        told: what it is.
        make: writes one into a folder, for a seed.
        has: whether an architecture can have it.
        weighs: whether weights are compared beside logits.
    """

    told: str
    make: Callable[[Architecture, PreTrainedModel, Path, int], None]
    has: Callable[[Architecture], bool] = lambda architecture: True
    weighs: bool = True


def _saved(options: Callable[[PreTrainedModel], dict[str, Any]]) -> Callable[[Architecture, PreTrainedModel, Path, int], None]:
    return lambda architecture, model, folder, seed: _lora(model, folder, seed, **options(model))


FEATURES: Mapping[str, Feature] = {
    "all linear": Feature("a LoRA on every linear module", _saved(lambda model: {})),
    "varied": Feature("rsLoRA, with ranks and alphas by pattern", _saved(_varied)),
    "embedding, head": Feature("a LoRA on the token embedding and the output head", _saved(_ends), weighs=False),
    "whole head": Feature("a LoRA that brings a trained head whole (`modules_to_save`)", _saved(_heads), weighs=False),
    "DoRA": Feature(
        "weight-decomposed LoRA; `convert` gets the base and a rank that no module exceeds",
        _saved(lambda model: {"use_dora": True}),
        lambda one: not one.parameters,  # PEFT has none for parameters
    ),
    "old names": Feature(
        "an adapter with the paths of transformers 4, merged with one of transformers 5; `merge` and `export` get the base",
        _saved(lambda model: {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
        lambda one: bool(one.old_prefixes),
    ),
    "single experts": Feature(
        "a LoRA on each expert by itself, as transformers 4 had them", _one_by_one, lambda one: bool(one.single_experts)
    ),
    "fused experts": Feature(
        "a LoRA on the experts' fused parameters (`target_parameters`)",
        lambda architecture, model, folder, seed: _lora(model, folder, seed, **_parameters(architecture)(model)),
        lambda one: bool(one.parameters),
    ),
}
"""Name -> kind of adapter."""


def _call(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run `pomona` in `folder` within this process: exit code, and what it said."""
    from tests.end_to_end.setting import call

    outcome = call(folder, *arguments)
    return outcome.code, outcome.out + outcome.err


def _refusal(code: int, said: str) -> Cell:
    if code != WRONG_INPUT:
        return Cell(WRONG, said.strip()[-300:])
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    return Cell(REFUSED, lines[0] if lines else said.strip()[-300:])


def _inspect(bench: Bench) -> Cell:
    code, said = _call(bench.folder, "inspect", "one")
    return Cell(EXACT) if code == 0 else _refusal(code, said)


def _check(bench: Bench) -> Cell:
    code, said = _call(bench.folder, "check", "one", "two", "--base", "base", "--for", "peft")
    return Cell(EXACT) if code == 0 else _refusal(code, said)


def _merge(bench: Bench) -> Cell:
    code, said = _call(bench.folder, "merge", "one", "two", "--method", "concat", "--output", "merged-adapter", *bench.with_base)
    if code:
        return _refusal(code, said)
    return bench.compare(bench.by_peft(bench.folder / "merged-adapter"), bench.expected(*bench.trained))


def _convert(bench: Bench) -> Cell:
    code, said = _call(bench.folder, "convert", "one", "--base", "base", "--output", "converted", *bench.conversion)
    if code:
        return _refusal(code, said)
    return bench.compare(bench.by_peft(bench.folder / "converted"), bench.expected(bench.trained[0]))


def _export_peft(bench: Bench) -> Cell:
    code, said = _call(bench.folder, "export", "one", "--for", "peft", "--output", "exported", *bench.with_base)
    if code:
        return _refusal(code, said)
    return bench.compare(bench.by_peft(bench.folder / "exported"), bench.expected(bench.trained[0]))


def _export_merged(bench: Bench) -> Cell:
    import transformers

    code, said = _call(bench.folder, "export", "one", "--for", "merged", "--base", "base", "--output", "whole")
    if code:
        return _refusal(code, said)
    kind = getattr(transformers, bench.architecture.kind)
    return bench.compare(kind.from_pretrained(bench.folder / "whole").eval(), bench.expected(bench.trained[0]))


def _generate(bench: Bench) -> Cell:
    """The live model with the adapter folded into it, as `generate` and `evaluate` have it."""
    from pomona.adapters import read_adapter
    from pomona.backbone.attach import attached
    from pomona.backbone.load import load_backbone
    from pomona.errors import PomonaError

    try:
        backbone = load_backbone(str(bench.base))
        with attached(backbone, [read_adapter(bench.one)]) as attachment, attachment.folded():
            return bench.compare(backbone.model, bench.expected(bench.trained[0]))
    except PomonaError as error:
        return Cell(REFUSED, f"error: {error}")


def _adapt(bench: Bench) -> Cell:
    """Both adapters tuned on sixteen examples; PEFT must make of the result what Pomona makes of it."""
    from pomona.adapters import read_adapter
    from pomona.backbone.attach import attached
    from pomona.backbone.load import load_backbone

    rows = [{"id": str(place), "document": f"row {place} of {place * 7 % 31}", "summary": f"row {place}"} for place in range(16)]
    (bench.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": "base",
        "task": {"name": "summarization", "max_new_tokens": 3},
        "data": {"train": "rows.jsonl", "near_duplicates": "allow"},
        "splits": {"train": 8, "micro_dev": 2, "dev": 2, "test": 2},
        "sources": [{"name": "one", "adapter": "one"}, {"name": "two", "adapter": "two"}],
        "tuning": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01},
        "controller": {"name": "fixed", "prune_ratio": 0.2},
        "evaluation": {"draws": 100, "baselines": ["zero_shot"]},
    }
    (bench.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, said = _call(bench.folder, "adapt", "recipe.yaml", "--output", "run")
    if code:
        return _refusal(code, said)
    result = bench.folder / "run" / "adapter"
    backbone = load_backbone(str(bench.base))
    with attached(backbone, [read_adapter(result)]) as attachment, attachment.folded():
        return bench.compare(backbone.model, bench.expected(result))


VERBS: Mapping[str, Callable[[Bench], Cell]] = {
    "inspect": _inspect,
    "check": _check,
    "merge": _merge,
    "convert": _convert,
    "export peft": _export_peft,
    "export merged": _export_merged,
    "generate": _generate,
    "adapt": _adapt,
}
"""Verb -> how it is tried."""


@contextlib.contextmanager
def bench_of(name: str, feature: str, folder: Path) -> Iterator[Bench]:
    """The model of an architecture and two adapters of a kind, in `folder`."""
    from tests.tiny import tiny_tokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    architecture = ARCHITECTURES[name]
    model = architecture.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's and transformers' own, about models of this size
        model.save_pretrained(folder / "base")
        tiny_tokenizer().save_pretrained(folder / "base")
        one, two, weighs = folder / "one", folder / "two", FEATURES[feature].weighs
        bench = Bench(architecture, model, folder / "base", one, two, (one, two), folder, weighs)
        for seed, target in ((1, one), (2, two)):
            FEATURES[feature].make(architecture, model, target, seed)
        if feature == "DoRA":
            bench.conversion = ("--rank", str(VOCABULARY))
        if feature == "old names":
            bench.with_base = ("--base", "base")
            bench.trained = (Path(shutil.copytree(one, folder / "trained")), two)
            _in_old_spelling(architecture, one)
        yield bench


def cells(name: str, feature: str, folder: Path, verbs: Mapping[str, Callable[[Bench], Cell]] = VERBS) -> dict[str, Cell]:
    """What every verb does with adapters of a kind on an architecture."""
    with bench_of(name, feature, folder) as bench:
        return {verb: _judged(run, bench) for verb, run in verbs.items()}


def _judged(run: Callable[[Bench], Cell], bench: Bench) -> Cell:
    from peft.utils.error import NoMatchingPeftModuleError

    try:
        return run(bench)
    except NoMatchingPeftModuleError as error:
        return Cell(UNJUDGED, " ".join(str(error).split()))


def page(found: Mapping[tuple[str, str], Mapping[str, Cell]]) -> str:
    """The document: a line for each kind of adapter and group of architectures with which every verb does the same."""
    import peft
    import transformers

    reasons: dict[str, int] = {}
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (name, feature), row in found.items():
        shown = tuple(_shown(cell, reasons) for cell in row.values())
        rows.setdefault((feature, shown), []).append(name)
    lines = [
        "# Architectures, adapters and verbs",
        "",
        "`python -m benchmarks architectures` writes this page. It builds a tiny model of each architecture with random weights.",
        f"PEFT {peft.__version__} with transformers {transformers.__version__} saves two adapters of each kind for the model.",
        "Each verb is run on these adapters.",
        "",
        "- **exact**: the result differs from PEFT's result on the original files, in logits and in every weight,",
        f"  by less than {BOUND:g} of the adapters' effect.",
        "- A number: the verb refuses the adapter with exit code 2 and writes nothing. The message is below the table.",
        "",
        "| adapter | architectures | " + " | ".join(VERBS) + " |",
        "| --- | --- |" + " --- |" * len(VERBS),
        *(
            f"| {feature} | {'; '.join(names)} | " + " | ".join(shown) + " |"
            for feature in FEATURES
            for (kind, shown), names in rows.items()
            if kind == feature
        ),
        "",
        *(f"- **{feature}**: {kind.told}." for feature, kind in FEATURES.items()),
        "",
        *(f"{number}. {reason}" for reason, number in reasons.items()),
        "",
    ]
    return "\n".join(lines)


def _shown(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.result != REFUSED:
        return cell.result
    return str(reasons.setdefault(_general(cell.told), len(reasons) + 1))


def _general(told: str) -> str:
    """A refusal without what only this model has, its folder; the commands in it are no whole lines to type."""
    told = told.replace("`", "")
    text = re.sub(r"/\S+/(one|two|base)\b", r"\1", told.removeprefix("error: "))
    return re.sub(r"\d+(?=\.)(?!\.\d)", "0", text).replace("|", "\\|").replace("<", "&lt;")


def run() -> bool:
    """Try every cell, write the page, and say which are wrong."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for feature, kind in FEATURES.items():
        for name, architecture in ARCHITECTURES.items():
            if kind.has(architecture):
                with tempfile.TemporaryDirectory() as folder:
                    found[name, feature] = cells(name, feature, Path(folder))
                results = ", ".join(f"{verb} {cell.result}" for verb, cell in found[name, feature].items())
                print(f"{feature} | {name} | {results}", flush=True)
    wrong = [(key, verb, cell.told) for key, row in found.items() for verb, cell in row.items() if cell.result == WRONG]
    for (name, feature), verb, told in wrong:
        print(f"WRONG: {feature} | {name} | {verb}: {told}")
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{len(found) * len(VERBS)} cells, {len(wrong)} wrong; written to {PAGE}")
    return not wrong
