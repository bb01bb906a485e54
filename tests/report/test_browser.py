"""The pages in a browser: no errors, no sideways scrolling on a phone, no axe violations in light and dark, loaded in a second."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.conftest import make_folder, make_record
from tests.report.test_experiment_page import make_experiment

from pomona.report import write_report
from pomona.report.experiment_page import write_experiment_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = ["run", "experiment"]
"""Names of `folders`; a page of another origin is one more entry."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    record = make_record(layers=6)
    weighted = [
        one.model_copy(update={"merge_weights": [1.0, 0.5], "sparsity_A": 0.1 * (one.layer or 0)}) for one in record.modules
    ]
    run = make_folder(root / "run", record.model_copy(update={"modules": weighted}), examples=12)
    return {"run": write_report(run), "experiment": write_experiment_report(make_experiment(root / "experiment"))}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_without_errors(browser: Any, folders: dict[str, Path], name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_page(color_scheme=scheme)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(folders[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = axe.Axe().run(page)
    page.close()
    assert errors == []
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_loads_within_a_second(browser: Any, folders: dict[str, Path], name: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(folders[name].as_uri())
    times = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    width = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert width <= 390
    assert times < 1000


def test_a_print_opens_what_is_shut_and_shuts_it_again(browser: Any, folders: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(folders["run"].as_uri())
    shut = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(shut)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    during = page.evaluate(shut)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    after = page.evaluate(shut)
    page.close()
    assert before > 5
    assert (during, after) == (0, before)
