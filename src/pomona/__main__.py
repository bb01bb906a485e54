"""`python -m pomona`: the `pomona` command."""

from __future__ import annotations

from pomona.cli.main import main

if __name__ == "__main__":
    main()
