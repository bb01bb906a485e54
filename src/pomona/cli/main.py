"""The `pomona` command: its verbs, and how every error becomes one line and an exit code.

0 done, 1 failed, 2 wrong input, 130 interrupted, 143 terminated, 129 hung up. `--debug`, anywhere, shows the traceback.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from pomona.cli.adapt import adapt
from pomona.cli.check import check
from pomona.cli.convert import convert
from pomona.cli.demo import demo
from pomona.cli.env import env
from pomona.cli.evaluate import evaluate
from pomona.cli.experiment import experiment
from pomona.cli.export import export
from pomona.cli.generate import generate
from pomona.cli.init import init
from pomona.cli.inspect import inspect
from pomona.cli.interrupted import DEBUG, INTERRUPTED, exit_code, message
from pomona.cli.list import list_registered
from pomona.cli.memory import large_tensors_apart
from pomona.cli.merge import merge
from pomona.cli.processes import end, processes
from pomona.cli.push import push
from pomona.cli.rank_sources import rank_sources
from pomona.cli.recipes import recipes
from pomona.cli.report import report
from pomona.cli.say import say
from pomona.cli.schema import schema
from pomona.cli.train_adapter import train_adapter
from pomona.cli.unforeseen import told
from pomona.errors import InputError, command_line
from pomona.stopping import stoppable
from pomona.verbosity import Verbosity, told_as

P = ParamSpec("P")
T = TypeVar("T")

VERBOSITIES: dict[str, Verbosity] = {"--quiet": "quiet", "--verbose": "verbose"}
ANYWHERE = {DEBUG, *VERBOSITIES}
"""Options that may stand before or after the verb."""

# Typer carries its own copy of click and names the class of usage errors only as the base of this one.
RUST_PANICS = "pyo3_runtime"
"""Where the panics of libraries in Rust come from, which are no `Exception`."""
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]


def guarded(verb: Callable[P, T]) -> Callable[P, T]:
    """The verb, with errors that a user can fix said in one line."""

    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with command_line():
                return verb(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            end(message(interrupt), exit_code(interrupt))
        except (typer.Exit, SystemExit, GeneratorExit):  # a verb's own exit code
            raise
        except BrokenPipeError:  # the reader has seen enough: `pomona list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__module__ != RUST_PANICS:
                raise
            told(error)

    return call


app = typer.Typer(
    name="pomona",
    epilog="With any verb: --quiet shows results, warnings and errors only; --verbose more of the progress; --debug the traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS: tuple[Any, ...] = (
    demo,
    init,
    adapt,
    experiment,
    train_adapter,
    rank_sources,
    merge,
    evaluate,
    generate,
    inspect,
    check,
    convert,
    export,
    push,
    report,
    recipes,
    schema,
    env,
)
NAMED = {list_registered: "list"}
for _verb in (*VERBS, *NAMED):
    # Of itself the list of verbs shows as much of a line as it has room for; what is given as `short_help` it shows whole.
    app.command(NAMED.get(_verb), short_help=(_verb.__doc__ or "").partition("\n\n")[0])(guarded(_verb))


def _show_version(asked: bool) -> None:
    if asked:
        import pomona

        say(f"pomona {pomona.__version__}")
        raise typer.Exit


@app.callback()
def before_any_verb(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Merge LoRA adapters, fine-tune the merge on fifty examples, learn how much of it to prune."""


def main() -> None:
    """Entry point of the `pomona` script."""
    large_tensors_apart()
    arguments = [argument for argument in sys.argv[1:] if argument not in ANYWHERE]
    if DEBUG in sys.argv[1:]:
        os.environ["POMONA_DEBUG"] = "1"
    verbosity: Verbosity = "normal"
    for one in sys.argv[1:]:
        verbosity = VERBOSITIES.get(one, verbosity)
    if any("\0" in argument for argument in arguments):
        say("error: an argument holds a NUL character, which no path or name has. See `pomona --help`.", err=True)
        raise SystemExit(InputError.exit_code)
    try:
        with stoppable(), told_as(verbosity), processes(arguments):
            code = app(args=arguments or ["--help"], prog_name="pomona", standalone_mode=False)
    except typer.Abort:  # Ctrl-C before the verb had begun
        raise SystemExit(INTERRUPTED) from None
    except USAGE_ERROR as error:
        end(f"error: {_usage_problem(error)}", InputError.exit_code)
    except Exception as error:
        told(error)
    raise SystemExit(code if isinstance(code, int) else 0)


def _usage_problem(error: Any) -> str:
    """An unknown verb or option, a missing or malformed value, in one line."""
    command = error.ctx.command_path if error.ctx is not None else "pomona"
    return f"{' '.join(error.format_message().split()).rstrip('.')}. See `{command} --help`."


if __name__ == "__main__":
    main()
