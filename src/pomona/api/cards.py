"""The cards of what verbs write, and their way to the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pomona.adapters import Adapter
from pomona.adapters.push import push
from pomona.report.card import adapter_card
from pomona.whole_files import write_whole

CARD = "README.md"


def write_card(
    adapter: Adapter,
    output: Path | str,
    made: str,
    *,
    sources: Sequence[str] = (),
    recipe: Mapping[str, object] | None = None,
    whole: bool = False,
    use: str | None = None,
    push_to_hub: str | None = None,
) -> None:
    """Write the card into an output's folder, or beside an output that is a file, and push both where asked.

    Args:
        adapter: what was written.
        output: the folder or file.
        made: as for `adapter_card`.
        sources: as for `adapter_card`.
        recipe: as for `adapter_card`.
        whole: as for `adapter_card`.
        use: as for `adapter_card`.
        push_to_hub: `OWNER/NAME`.

    Raises:
        PomonaError: the hub refuses.
    """
    path = Path(output)
    card = adapter_card(adapter, path.stem, made, sources=sources, recipe=recipe, whole=whole, use=use)
    place = path / CARD if path.is_dir() else path.with_name(f"{path.name}.md")
    write_whole(place, card)
    if push_to_hub is not None:
        push(path, push_to_hub, card=card)
