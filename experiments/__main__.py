"""Run the experiments: `python -m experiments`, or some of the data sets: `python -m experiments csl_title/zh --seeds 0 1 2`."""

from __future__ import annotations

import argparse

from experiments import few_shot


def main() -> None:
    """Read the command line and run."""
    names = [setting.name for setting in few_shot.SETTINGS]
    parser = argparse.ArgumentParser(prog="python -m experiments", description=few_shot.__doc__)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--no-page", action="store_true", help="keep the scores only")
    given = parser.parse_args()
    if unknown := set(given.sets) - set(names):
        parser.error(f"no such data set: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    few_shot.run(given.sets, given.seeds, write=not given.no_page)


if __name__ == "__main__":
    main()
