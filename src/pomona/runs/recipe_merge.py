"""The section `merge` of a recipe: how the adapters are merged, and what of the merge is trained, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from pomona.backbone.trainable import trainable_merges
from pomona.backbone.trainable.coefficients import Coefficients, Unit
from pomona.errors import InputError, suggest
from pomona.merging import merge_methods
from pomona.runs.recipe_fields import WeightRuleField, numbers
from pomona.runs.section import Section
from pomona.tuning.stages import Stage, Trained


def _stages(value: object) -> object:
    """Stages with shares that add up to 1, as they are written."""
    if isinstance(value, dict) and value:
        written = numbers(value)
        shares = list(written.values()) if isinstance(written, dict) else []
        if not all(isinstance(share, float) and 0 < share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise InputError("the shares of the stages must be above 0 and add up to 1", field="merge.train", value=value)
        return written
    if isinstance(value, list | tuple | dict) and not value:
        raise InputError(
            "names no stage", field="merge.train", value=value, fix=f"Use one or more of {', '.join(get_args(Trained))}"
        )
    return value


TrainField = Annotated[Trained | tuple[Trained, ...] | dict[Trained, float], BeforeValidator(_stages)]


class CoefficientSettings(Section):
    """The coefficients that `merge.train: coefficients` trains, one for each adapter and unit.

    Args:
        unit: the part of an adapter that has one coefficient: the whole `adapter`, a `layer`, a `module`, or a `component` (a row
            of A with its column of B).
        start: the merge weights at the start: `given`, the recipe's; `zero`; or `target`, 1 for the target LoRA and 0 for the
            sources. A source whose given weight is 0 takes no part.
        learning_rate: of the coefficients.
        negative_slope: the merge weight is `f(c)`, with leaky ReLU as f; its slope below 0, in (0, 1]. 1: the coefficient itself.
        binary: f is a gate that is open (1) or closed (0) in place of leaky ReLU: the given weight or 0.
    """

    unit: Unit = "module"
    start: Literal["given", "zero", "target"] = "given"
    learning_rate: float = Field(default=5e-2, gt=0)
    negative_slope: float = Field(default=0.01, gt=0, le=1)
    binary: bool = False

    def of(self, sources: int, *, target: bool) -> Coefficients:
        """Of so many sources, and of the target LoRA if it is merged, which comes last."""
        starts = {"given": None, "zero": (0.0,) * (sources + target), "target": (0.0,) * sources + (1.0,)}
        return Coefficients(self.unit, starts[self.start], self.negative_slope, self.binary)


class Merge(Section):
    """What is trained: the adapters' own factors, with a trainable merge, or one pair that a static merge method makes of them.

    With `concat` the update is the exact sum of the adapters' updates; with `linear` every adapter's own factors are trained and
    their sums are used, as ALM does; with any other method its result is trained.

    Args:
        method: a trainable merge or a merge method; of one name in both, the trainable merge.
        rank: the largest rank of a module, where the method can choose one.
        parameters: the method's hyperparameters.
        target: whether a LoRA trained on the target's own examples is among the merged ones.
        frozen: names of sources that take part and whose factors are not trained (trainable merges only).
        weights: `nan`: each adapter's weight is also multiplied by a factor that is inverse to the norm of its update
            (`pomona.merging.norm_weights`); None leaves the sources' weights as given.
        train: `factors`; `coefficients`, with all factors frozen; or stages of one run, one after the other, each with a share of
            the optimizer steps: a list such as `[coefficients, factors]` (equal shares), or `{coefficients: 0.3, factors: 0.7}`.
            Coefficients need `concat`.
        coefficients: how coefficients are trained.
        weights_learning_rate: trains the merge weights of the adapters whose factors are trained too, one an adapter and module, at
            this rate; where every adapter is frozen, the merge weights alone (trainable merges only). None leaves them as given.
        paper: ALM's published code, which leaves the adapters' scaling out (`linear`).
    """

    method: str = "concat"
    rank: int | None = Field(default=None, ge=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    target: bool = False
    frozen: tuple[str, ...] = ()
    weights: WeightRuleField = None
    train: TrainField = "factors"
    coefficients: CoefficientSettings = CoefficientSettings()
    weights_learning_rate: float | None = Field(default=None, gt=0)
    paper: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
        published = [name for name in trainable_merges if trainable_merges[name].has_paper]
        if self.paper and self.method not in published:
            raise ValueError(f"`paper` needs method {' or '.join(published)}")
        if self.method not in merge_methods and self.method not in trainable_merges:
            known = {*merge_methods, *trainable_merges}
            raise InputError("no such merge method", value=self.method, fix=suggest(self.method, known))
        self._check_coefficients()
        if self.method in trainable_merges:
            trainable_merges.create(self.method, self.parameters)
            if self.rank is not None:
                raise ValueError(f"{self.method} has the rank that the adapters give it: leave `rank` out, or use svd")
            return self
        merge_methods.create(self.method, self.parameters)
        if self.frozen or self.weights_learning_rate is not None:
            names = " or ".join(trainable_merges)
            raise ValueError(f"method {self.method} makes one pair: `frozen` and `weights_learning_rate` need {names}")
        return self

    def _check_coefficients(self) -> None:
        if not self.trains_coefficients:
            if self.coefficients != CoefficientSettings():
                raise InputError(
                    "no coefficients are trained",
                    field="merge.coefficients",
                    fix="Set merge.train to coefficients, or leave it out",
                )
            return
        fit = [name for name in trainable_merges if trainable_merges[name].has_coefficients]
        if self.method not in fit:
            raise InputError(
                "needs a merge that is the sum of the adapters' updates",
                field="merge.train",
                value=self.train,
                fix=f"Use merge.method {' or '.join(fit)}, not {self.method}",
            )
        if self.weights_learning_rate is not None:
            raise InputError(
                "the coefficients are the merge weights and have their own rate",
                field="merge.weights_learning_rate",
                value=self.weights_learning_rate,
                fix="Use merge.coefficients.learning_rate",
            )
        if self.coefficients.start == "target" and not self.target:
            raise InputError(
                "no target LoRA is merged",
                field="merge.coefficients.start",
                value="target",
                fix="Set merge.target to true, or start at given or zero",
            )

    @property
    def trains_coefficients(self) -> bool:
        """Whether `train` names coefficients."""
        return any(stage.trains == "coefficients" for stage in self.stages)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is trained, in order; one stage for the whole run where `train` is one word."""
        if isinstance(self.train, dict):
            return tuple(Stage(trains, share) for trains, share in self.train.items())
        if isinstance(self.train, str):
            return (Stage(self.train, 1.0),)
        return tuple(Stage(trains, 1 / len(self.train)) for trains in self.train)

    def trains_factors(self, sources: Sequence[str]) -> bool:
        """Whether any factor is trained, given the names of the sources."""
        return any(stage.trains == "factors" for stage in self.stages) and (self.target or not set(sources) <= set(self.frozen))

    def learned_weights(self, sources: Sequence[str]) -> Coefficients | None:
        """How the merge weights of all adapters are trained, frozen ones too; None where they are not.

        `weights_learning_rate` does so where it has nothing else to train: the weights themselves, one an adapter and module.
        """
        if self.trains_coefficients:
            return self.coefficients.of(len(sources), target=self.target)
        if self.weights_learning_rate is not None and not self.trains_factors(sources):
            return Coefficients(negative_slope=1.0)
        return None

    @property
    def weights_rate(self) -> float | None:
        """The learning rate of the merge weights, where they are trained."""
        return self.coefficients.learning_rate if self.trains_coefficients else self.weights_learning_rate
