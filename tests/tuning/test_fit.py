"""The one training loop: exact counts, bit-identical runs and resumes, the choice of epoch, and what it refuses."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_examples
from tests.tuning.runs import DATA, STEPS, TUNING, assert_same, best_flags, events, quota, script_dev_losses, train, zeros

from pomona.adapters import Adapter
from pomona.backbone.attach import Attachment, attached, new_adapter
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.trainable.concat import ConcatModule
from pomona.control import Fixed, Grasp
from pomona.errors import InputError, PomonaError
from pomona.importance import Magnitude
from pomona.pruning import pruned_count
from pomona.tuning.fit import fit
from pomona.tuning.progress import Silent
from pomona.tuning.settings import Event, FitData, Pruning, Tuning

CONTROLLERS: dict[str, Fixed | Grasp] = {
    "fixed": Fixed(0.5),
    "single_pass": Grasp(interval_steps=1, commit_level=0),
    "two_pass": Grasp(interval_steps=3, commit_level=0, mode="two_pass"),
    "paper": Grasp(interval_steps=2, mode="two_pass", paper=True),
}


def pruned(name: str, **changes: Any) -> dict[str, Any]:
    return {"pruning": Pruning(), "controller": dataclasses.replace(CONTROLLERS[name], **changes)}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_exported_factor_has_exactly_the_pruned_count_of_zeros(llama: Backbone, name: str) -> None:
    fitted = train(llama, **pruned(name))
    assert fitted.answer is not None
    ratio = fitted.answer.prune_ratio
    assert 0.1 <= ratio <= 0.8
    assert zeros(fitted.adapter) == [(quota(ratio, n), n) for _, n in zeros(fitted.adapter)]
    rounds = {"fixed": 0, "single_pass": 4, "two_pass": 2, "paper": 4}[name]
    assert len(events(fitted, "round")) == rounds
    assert fitted.control is not None
    assert len(fitted.control.rounds) == rounds
    assert len(events(fitted, "step")) == STEPS
    assert set(fitted.importance) == set(fitted.adapter)
    assert min(fitted.importance.values()) > 0


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_run_resumed_from_any_step_ends_bit_for_bit_as_it_would_have(llama: Backbone, tmp_path: Path, name: str) -> None:
    path = tmp_path / "fit.safetensors"

    def keep(event: Event) -> None:
        if event["kind"] == "step" and path.exists():  # told before the step is saved: the file is the last step's
            shutil.copy(path, tmp_path / str(int(event["step"]) - 1))  # pyright: ignore[reportArgumentType]

    whole = train(llama, checkpoint=path, emit=keep, **pruned(name))
    shutil.copy(path, tmp_path / str(STEPS))
    for step in range(1, STEPS + 1):
        torch.manual_seed(step)  # whatever the new process's own random state is
        told: list[Event] = []
        resumed = train(llama, checkpoint=tmp_path / str(step), emit=told.append, **pruned(name))
        assert_same(resumed, whole)
        assert told == whole.history


def test_a_run_killed_between_checkpoints_is_resumed_from_the_last(llama: Backbone, tmp_path: Path) -> None:
    tuning = dataclasses.replace(TUNING, checkpoint_steps=3)
    whole = train(llama, tuning=tuning, **pruned("single_pass"))

    def kill(event: Event) -> None:
        if event["kind"] == "step" and event["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(llama, tuning=tuning, checkpoint=tmp_path / "fit", emit=kill, **pruned("single_pass"))
    assert not any(isinstance(module, ConcatModule) for module in llama.model.modules())
    steps: list[int] = []

    class Counting(Silent):
        def advance(self, done: int, note: str = "") -> None:
            steps.append(done)

    assert_same(train(llama, tuning=tuning, checkpoint=tmp_path / "fit", progress=Counting(), **pruned("single_pass")), whole)
    assert steps == [3, 1, 1, 1, 1, 1]  # from step 3 on, not from the start


def test_a_run_without_pruning_resumes_too(llama: Backbone, tmp_path: Path) -> None:
    whole = train(llama, checkpoint=tmp_path / "fit", emit=stop_copying(tmp_path, at=5))
    assert_same(train(llama, checkpoint=tmp_path / "kept"), whole)


def stop_copying(folder: Path, at: int) -> Callable[[Event], None]:
    def keep(event: Event) -> None:
        if event["kind"] == "step" and event["step"] == at:
            shutil.copy(folder / "fit", folder / "kept")

    return keep


def test_a_run_that_patience_ended_stays_ended_when_resumed(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tuning = dataclasses.replace(TUNING, patience_epochs=1)
    script_dev_losses(monkeypatch, [2.0, 3.0, 1.0, 1.0])
    whole = train(llama, tuning=tuning, checkpoint=tmp_path / "fit", **pruned("fixed"))
    assert len(events(whole, "epoch")) == 2
    assert_same(train(llama, tuning=tuning, checkpoint=tmp_path / "fit", **pruned("fixed")), whole)


@pytest.mark.parametrize("name", ["fixed", "single_pass"])
def test_two_runs_are_bit_identical_and_another_seed_differs(llama: Backbone, name: str) -> None:
    first = train(llama, seed=5, **pruned(name))
    torch.rand(3)
    assert_same(train(llama, seed=5, **pruned(name)), first)
    other = train(llama, seed=6, **pruned(name))
    assert other.adapter.fingerprint() != first.adapter.fingerprint()
    assert events(other, "step")[0]["loss"] != events(first, "step")[0]["loss"]


@pytest.mark.parametrize("pruning", [None, Pruning()])
def test_training_learns_a_tiny_problem_by_heart(sharp: Backbone, pruning: Pruning | None) -> None:
    data = FitData(tiny_examples(4, seed=1))
    tuning = Tuning(epochs=16, learning_rate=3e-2, learning_rate_decay=1.0, batch_size=4, dropout=0.0)
    targets = [path.rpartition(".")[2] for path in sharp.shapes()]
    fresh = new_adapter(sharp, targets, 8, 8.0, torch.Generator().manual_seed(0))
    before = example_losses(sharp, data.train, 4)
    fitted = train(sharp, data, tuning, adapters=[fresh], pruning=pruning, controller=Fixed(0.5))
    losses = [event["loss"] for event in events(fitted, "step")]
    # B = 0 changes nothing yet, and every completion has the same length.
    assert losses[0] == pytest.approx(sum(before) / 4, abs=1e-5)
    assert losses[0] > 5
    assert losses[-1] < 0.6
    with attached(sharp, [fitted.adapter]):
        assert sum(example_losses(sharp, data.train, 4)) / 4 < 0.6


def test_the_first_step_is_the_gradient_of_all_its_batches_over_all_their_tokens(llama: Backbone) -> None:
    """Accumulation: two batches of 2 make the step that one batch of 4 makes, whatever the lengths of their completions."""
    examples = [*tiny_examples(2, seed=1, completion=2), *tiny_examples(2, seed=2, completion=5)]
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-2, "dropout": 0.0}
    small = train(llama, FitData(examples), Tuning(batch_size=2, accumulation_steps=2, **options))
    large = train(llama, FitData(examples), Tuning(batch_size=4, **options))
    assert len(events(small, "step")) == len(events(large, "step")) == 1
    assert events(small, "step")[0]["loss"] == pytest.approx(events(large, "step")[0]["loss"], abs=1e-5)
    assert small.tokens == large.tokens == sum(map(len, examples))
    sums = example_losses_by_hand(llama, examples)
    assert events(small, "step")[0]["loss"] == pytest.approx(sums, abs=1e-5)
    for path in small.adapter:
        torch.testing.assert_close(small.adapter[path].A, large.adapter[path].A, atol=1e-4, rtol=0)


def example_losses_by_hand(backbone: Backbone, examples: Sequence[Any]) -> float:
    """Mean over all completion tokens with the two adapters attached."""
    with attached(backbone, [tiny_adapter(backbone, seed=1, rank=2), tiny_adapter(backbone, seed=2, rank=3, scaling=1.5)]):
        means = example_losses(backbone, examples, 1)
    counts = [len(example) - example.completion_start for example in examples]
    return sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)


def test_the_rate_is_constant_within_an_epoch_and_decays_between(llama: Backbone) -> None:
    fitted = train(llama, tuning=dataclasses.replace(TUNING, learning_rate=1e-3, learning_rate_decay=0.5))
    rates = [event["learning_rate"] for event in events(fitted, "step")]
    assert rates == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 1.25e-4]
    assert [event["epoch"] for event in events(fitted, "step")] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert fitted.tokens == 4 * sum(map(len, DATA.train))


def test_gradient_clip_bounds_the_whole_gradient(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spy(optimizer: torch.optim.AdamW, *args: Any) -> Any:
        gradients = [parameter.grad.flatten() for group in optimizer.param_groups for parameter in group["params"]]
        norms.append(float(torch.cat(gradients).norm()))
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    one_step = dataclasses.replace(TUNING, epochs=1, dropout=0.0)
    train(llama, tuning=dataclasses.replace(one_step, gradient_clip=None))
    free = norms[0]
    norms.clear()
    train(llama, tuning=dataclasses.replace(one_step, gradient_clip=free / 4))
    assert norms[0] == pytest.approx(free / 4, rel=1e-4)
    norms.clear()
    train(llama, tuning=dataclasses.replace(one_step, gradient_clip=free * 4))
    assert norms[0] == free


@pytest.mark.parametrize("pruning", [None, Pruning()])
def test_the_epoch_with_the_lowest_dev_loss_is_exported(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, pruning: Pruning | None
) -> None:
    options: dict[str, Any] = {"pruning": pruning, "controller": Fixed(0.5)}
    short = train(llama, tuning=dataclasses.replace(TUNING, epochs=3), **options)
    script_dev_losses(monkeypatch, [4.0, 5.0, 2.0, 2.0, 3.0])  # of equals the first
    fitted = train(llama, tuning=dataclasses.replace(TUNING, epochs=5), **options)
    assert (fitted.epoch, fitted.dev_loss) == (3, 2.0)
    assert best_flags(fitted) == [True, False, True, False, False]
    assert short.epoch == 3
    assert short.adapter.fingerprint() == fitted.adapter.fingerprint()
    expected = 0 if pruning is None else sum(quota(0.5, n) for _, n in zeros(fitted.adapter))
    assert sum(count for count, _ in zeros(fitted.adapter)) == expected


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_dev_loss_is_that_of_the_exported_adapter(llama: Backbone, name: str) -> None:
    fitted = train(llama, **pruned(name))
    with attached(llama, [fitted.adapter]):
        losses = example_losses(llama, DATA.dev, 1)
    assert fitted.dev_loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_an_epoch_of_the_search_is_judged_again_once_the_ratio_is_settled(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its factors were pruned at another ratio than the answer, and what they lost to that is revived."""
    exports: list[Adapter] = []

    def look(event: dict[str, Any], attachment: Attachment) -> None:
        if event["kind"] == "epoch":
            exports.append(attachment.export())

    # 70 % of 8 steps are 5: the third epoch is the first whose factors are pruned at the answer.
    settings = pruned("single_pass", settle_fraction=0.7)
    # Two epochs of the search, the better one again, the third and the fourth.
    script_dev_losses(monkeypatch, [1.0, 4.0, 2.0, 2.5, 5.0])
    fitted = train(llama, look=look, **settings)
    assert [(event["step"], event["epoch"], event["best"]) for event in events(fitted, "epoch")] == [
        (2, 1, False), (4, 2, False), (5, 1, True), (6, 3, False), (8, 4, False)
    ]  # fmt: skip
    assert (fitted.epoch, fitted.dev_loss) == (1, 2.0)
    assert fitted.answer is not None
    assert fitted.answer.prune_ratio != settings["controller"].prune_ratio_start
    assert zeros(fitted.adapter) == [(quota(fitted.answer.prune_ratio, n), n) for _, n in zeros(exports[0])]
    for path in fitted.adapter:
        one, other = fitted.adapter[path], exports[0][path]
        for now, then in ((one.A, other.A), (one.B, other.B)):
            both = (now != 0) & (then != 0)
            assert both.sum() > now.numel() // 3
            assert torch.equal(now[both], then[both])
    script_dev_losses(monkeypatch, [1.0, 4.0, 3.0, 2.5, 2.0])
    later = train(llama, **settings)
    assert (later.epoch, later.dev_loss) == (4, 2.0)
    undisturbed = train(llama, dataclasses.replace(DATA, dev=[]), **settings)
    assert later.adapter.fingerprint() == undisturbed.adapter.fingerprint()
    script_dev_losses(monkeypatch, [4.0, 1.0, 2.0, 3.0, 5.0])
    assert train(llama, **settings).epoch == 2


def test_the_first_of_two_passes_is_judged_at_its_end_alone(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    script_dev_losses(monkeypatch, [1.0])  # there is no second one to ask for
    two = train(llama, **pruned("two_pass"))
    assert [event["dev_loss"] for event in events(two, "epoch")] == [None, None, None, 1.0]
    assert best_flags(two) == [False, False, False, True]
    assert (two.epoch, two.dev_loss) == (4, 1.0)


def test_without_dev_examples_nothing_is_looked_back_on(llama: Backbone) -> None:
    fitted = train(llama, dataclasses.replace(DATA, dev=[]), **pruned("single_pass", settle_fraction=0.7))
    assert [(event["epoch"], event["best"]) for event in events(fitted, "epoch")] == [(1, False), (2, False), (3, True), (4, True)]


def test_without_dev_examples_the_last_epoch_is_exported(llama: Backbone) -> None:
    fitted = train(llama, FitData(DATA.train))
    assert (fitted.epoch, fitted.dev_loss) == (4, None)
    assert [event["dev_loss"] for event in events(fitted, "epoch")] == [None] * 4


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 7), (3, 8), (None, 9)])
def test_patience_ends_the_run(llama: Backbone, monkeypatch: pytest.MonkeyPatch, patience: int | None, epochs: int) -> None:
    script_dev_losses(monkeypatch, [3.0, 4.0, 2.0, 3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    fitted = train(llama, tuning=dataclasses.replace(TUNING, epochs=9, patience_epochs=patience))
    assert len(events(fitted, "epoch")) == epochs
    assert fitted.epoch == (1 if patience == 1 else 5)


def test_patience_counts_from_the_first_epoch_under_the_answer_though_an_earlier_one_is_the_best(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run would end when its ratio is settled, with factors that were never trained under it."""
    # 60 % of 12 steps are 7: the fourth epoch is the first under the answer.
    losses = [1.0, 1.05, 1.1, 2.0, 2.1, 2.2, 1.9]
    for patience, told in ((1, [1, 2, 3, 1, 4, 5]), (2, [1, 2, 3, 1, 4, 5, 6])):
        script_dev_losses(monkeypatch, losses)
        tuning = dataclasses.replace(TUNING, epochs=6, patience_epochs=patience)
        fitted = train(llama, tuning=tuning, **pruned("single_pass"))
        assert [event["epoch"] for event in events(fitted, "epoch")] == told
        assert fitted.epoch == (1 if patience == 1 else 6)


def test_without_pruning_no_zero_appears(llama: Backbone) -> None:
    fitted = train(llama)
    assert sum(count for count, _ in zeros(fitted.adapter)) == 0
    assert (fitted.answer, fitted.control, fitted.importance) == (None, None, {})
    assert {event["prune_ratio"] for event in events(fitted, "step")} == {0.0}
    by_default = train(llama, pruning=Pruning())
    assert by_default.answer is not None
    assert by_default.answer.prune_ratio == 0.0
    assert sum(count for count, _ in zeros(by_default.adapter)) == 0
    assert by_default.adapter.fingerprint() == fitted.adapter.fingerprint()  # a ratio of 0 trains as if there were none


@pytest.mark.parametrize("interval_steps", [2, 3, 5, 100])
def test_counts_are_exact_at_the_ends_of_epochs_whatever_the_interval(llama: Backbone, interval_steps: int) -> None:
    tuning = dataclasses.replace(TUNING, batch_size=1, epochs=2, accumulation_steps=1)  # 7 steps an epoch
    seen: list[int] = []
    with attached(llama, [tiny_adapter(llama)], dropout=0.1) as attachment:

        def count(event: Event) -> None:
            if event["kind"] == "epoch":
                seen.append(sum(int((parameter == 0).sum()) for parameter in attachment.parameters().values()))

        fitted = fit(attachment, DATA, tuning, pruning=Pruning(interval_steps=interval_steps), controller=Fixed(0.3), emit=count)
    expected = sum(pruned_count(0.3, n) for _, n in zeros(fitted.adapter))
    assert seen == [expected, expected]
    assert sum(count for count, _ in zeros(fitted.adapter)) == expected


def test_interval_one_and_interval_two_train_differently(llama: Backbone) -> None:
    one, two = (
        train(llama, pruning=Pruning(Magnitude(), interval_steps=steps), controller=Fixed(0.5)).adapter.fingerprint()
        for steps in (1, 2)
    )
    assert one != two


@pytest.mark.parametrize("pruning", [None, Pruning()])
def test_a_loss_that_is_not_finite_ends_the_run(llama: Backbone, pruning: Pruning | None) -> None:
    with pytest.raises(
        PomonaError, match=r"^the training loss of pomona is not finite after 1 steps \(got nan\)\. Lower"
    ) as caught:
        train(llama, tuning=dataclasses.replace(TUNING, learning_rate=1e30), pruning=pruning, controller=Fixed(0.5))
    assert caught.value.exit_code == 1
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize("gradient_clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_ends_the_run_before_it_reaches_a_factor(
    llama: Backbone, gradient_clip: float | None
) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        parameters = attachment.parameters()
        parameters["model.layers.0.self_attn.q_proj.A"].register_hook(lambda grad: grad * float("inf"))
        tuning = dataclasses.replace(TUNING, gradient_clip=gradient_clip)
        with pytest.raises(PomonaError, match="the training gradient of pomona is not finite after 0 steps"):
            fit(attachment, DATA, tuning, pruning=Pruning(), controller=Fixed(0.5))
        assert all(bool(parameter.isfinite().all()) for parameter in parameters.values())


def test_the_attachment_is_left_quiet_even_when_the_run_fails(llama: Backbone) -> None:
    def quiet(attachment: Attachment) -> bool:
        return all(layer.observer is None and not layer.training for layer in attachment.layers.values())

    def fail(event: Event) -> None:
        raise RuntimeError("disk full")

    with attached(llama, [tiny_adapter(llama)]) as attachment:
        with pytest.raises(RuntimeError, match="disk full"):
            fit(attachment, DATA, TUNING, emit=fail, **pruned("fixed"))
        assert quiet(attachment)
        fit(attachment, DATA, TUNING, **pruned("fixed"))
        assert quiet(attachment)


def test_the_attachment_holds_the_chosen_epoch_afterwards(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    script_dev_losses(monkeypatch, [2.0, 1.0, 3.0, 4.0])
    with attached(llama, [tiny_adapter(llama)], dropout=0.1) as attachment:
        fitted = fit(attachment, DATA, TUNING, **pruned("fixed"))
        assert fitted.epoch == 2
        assert attachment.export().fingerprint() == fitted.adapter.fingerprint()


def test_history_says_system_step_and_ratio(llama: Backbone) -> None:
    told: list[Event] = []
    fitted = train(llama, system="merge", emit=told.append, **pruned("fixed"))
    assert told == fitted.history
    assert {event["system"] for event in told} == {"merge"}
    assert [(event["kind"], event["step"]) for event in told[:4]] == [("step", 1), ("step", 2), ("epoch", 2), ("step", 3)]
    assert set(told[0]) == {"kind", "system", "step", "epoch", "loss", "learning_rate", "prune_ratio"}
    assert set(told[2]) == {"kind", "system", "step", "epoch", "dev_loss", "best"}
    assert told[0]["prune_ratio"] == 0.5


def test_no_training_examples_is_an_input_error(llama: Backbone) -> None:
    with pytest.raises(InputError, match=r"^train: there are no training examples"):
        train(llama, FitData([]))


def test_learning_without_micro_dev_examples_is_an_input_error(llama: Backbone) -> None:
    with pytest.raises(InputError, match="micro_dev"):
        train(llama, FitData(DATA.train), **pruned("single_pass"))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"system": "merge"},
        {"tuning": dataclasses.replace(TUNING, learning_rate=1e-3)},
        {"data": FitData([*DATA.train, *DATA.train], DATA.micro_dev, DATA.dev)},
        {"controller": Fixed(0.6)},
        {"controller": CONTROLLERS["single_pass"]},
        {"pruning": None},
        {"pruning": Pruning(Magnitude())},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_checkpoint_of_another_run_is_refused(llama: Backbone, tmp_path: Path, change: dict[str, Any]) -> None:
    options = pruned("fixed")
    train(llama, checkpoint=tmp_path / "fit", **options)
    with pytest.raises(
        InputError, match=r"fit: this checkpoint belongs to another run, or to another version of Pomona\. Resume with"
    ):
        train(llama, checkpoint=tmp_path / "fit", **{**options, **change})


def test_a_checkpoint_of_other_adapters_is_refused(llama: Backbone, tmp_path: Path) -> None:
    train(llama, checkpoint=tmp_path / "fit")
    with pytest.raises(InputError, match="belongs to another run"):
        train(llama, checkpoint=tmp_path / "fit", adapters=[tiny_adapter(llama, rank=4)])


@pytest.mark.parametrize(
    ("examples", "batch_size", "accumulation_steps", "epochs", "expected"),
    [(7, 2, 2, 4, 8), (50, 8, 1, 4, 28), (50, 1, 8, 10, 70), (1, 8, 8, 1, 1), (8, 4, 1, 3, 6)],
)
def test_total_steps(examples: int, batch_size: int, accumulation_steps: int, epochs: int, expected: int) -> None:
    tuning = Tuning(epochs=epochs, batch_size=batch_size, accumulation_steps=accumulation_steps)
    assert tuning.total_steps(examples) == expected
