"""The site in a browser: no finding of axe in light and dark, and keys that stay on one line at the width of a telephone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
PAGES = ("index", "tutorial", "which-verb")
KEYS = "reference/recipe"

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some pages with the theme, styles and scripts of the site."""
    commands = pytest.importorskip("mkdocs.commands.build")
    config = pytest.importorskip("mkdocs.config")
    folder = tmp_path_factory.mktemp("site")
    for path in [*(f"{page}.md" for page in (*PAGES, KEYS)), "stylesheets/site.css", "javascripts/labels.js", "images/report.png"]:
        (folder / "docs" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "docs" / path, folder / "docs" / path)
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings |= {"nav": [f"{page}.md" for page in (*PAGES, KEYS)], "plugins": ["search"], "validation": {}}
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    commands.build(config.load_config(str(folder / "mkdocs.yml")))
    return folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM))
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Path, browser: Any, scheme: str) -> None:
    """Of all rules in light, and of those of colours in dark."""
    rules = {} if scheme == "light" else {"runOnly": ["color-contrast", "link-in-text-block"]}
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for page in PAGES:
        opened = browser.new_page(color_scheme=scheme)
        opened.goto(f"file://{site / page}.html")
        found = axe.run(opened, options=rules).response["violations"]
        assert [(one["id"], node["html"][:120]) for one in found for node in one["nodes"]] == [], page
        opened.close()


def test_a_key_is_on_one_line_on_a_telephone(site: Path, browser: Any) -> None:
    opened = browser.new_page(viewport={"width": 390, "height": 844})
    opened.goto(f"file://{site / KEYS}.html")
    lines = opened.eval_on_selector_all(
        "td:first-child code", "all => all.map(one => [one.innerText, one.getClientRects().length])"
    )
    assert ["weights_learning_rate", 1] in lines
    assert [key for key, count in lines if count != 1] == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390  # tables scroll by themselves
    opened.close()
