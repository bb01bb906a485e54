"""The public names, for type checkers and editors; `__init__.py` imports each when it is first used."""

from pomona.adapters import Adapter as Adapter
from pomona.adapters import Factors as Factors
from pomona.adapters import read_adapter as read_adapter
from pomona.adapters import write_adapter as write_adapter
from pomona.adapters.push import push as push
from pomona.api.adapt import adapt as adapt
from pomona.api.check import Checked as Checked
from pomona.api.check import check as check
from pomona.api.experiment import experiment as experiment
from pomona.api.export import Exported as Exported
from pomona.api.export import export as export
from pomona.api.generate import Generation as Generation
from pomona.api.generate import generate as generate
from pomona.api.given import read_recipe as read_recipe
from pomona.api.inspect import Inspection as Inspection
from pomona.api.inspect import inspect as inspect
from pomona.api.train_adapter import train_adapter as train_adapter
from pomona.backbone.load import load_backbone as load_backbone
from pomona.errors import InputError as InputError
from pomona.errors import PomonaError as PomonaError
from pomona.merging.merge import merge as merge
from pomona.report import read_run as read_run
from pomona.report import write_report as write_report
from pomona.runs.evaluate import evaluate as evaluate
from pomona.runs.examples import read_examples as read_examples
from pomona.runs.examples import read_splits as read_splits
from pomona.runs.experiments.record import ExperimentRecord as ExperimentRecord
from pomona.runs.recipe import Recipe as Recipe
from pomona.runs.recipe import TrainRecipe as TrainRecipe
from pomona.runs.record import EvaluationRecord as EvaluationRecord
from pomona.runs.record import RunRecord as RunRecord

__version__: str
__all__ = [
    "Adapter",
    "Checked",
    "EvaluationRecord",
    "ExperimentRecord",
    "Exported",
    "Factors",
    "Generation",
    "InputError",
    "Inspection",
    "PomonaError",
    "Recipe",
    "RunRecord",
    "TrainRecipe",
    "adapt",
    "check",
    "evaluate",
    "experiment",
    "export",
    "generate",
    "inspect",
    "load_backbone",
    "merge",
    "push",
    "read_adapter",
    "read_examples",
    "read_recipe",
    "read_run",
    "read_splits",
    "train_adapter",
    "write_adapter",
    "write_report",
]
