"""How threads wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pomona.threads import SETTING, wait_asleep

WHAT_THE_ENVIRONMENT_SAYS = f"""
import os, sys, pomona
assert "torch" not in sys.modules, "the setting would come too late"
print(os.environ["{SETTING}"])
"""
TORCH_S_OPENMP = list(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
WHAT_OPENMP_HAS = f"""
import ctypes, pomona
ctypes.CDLL("{TORCH_S_OPENMP[0] if TORCH_S_OPENMP else ""}")
"""


def python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if name not in {SETTING, "GOMP_SPINCOUNT"}} | settings
    return subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(("settings", "found"), [({}, "PASSIVE"), ({SETTING: "ACTIVE"}, "ACTIVE")], ids=["nothing set", "set"])
def test_importing_pomona_asks_for_it_before_torch_unless_the_environment_says_otherwise(
    settings: dict[str, str], found: str
) -> None:
    assert python(WHAT_THE_ENVIRONMENT_SAYS, **settings).stdout.strip() == found


@pytest.mark.skipif(not TORCH_S_OPENMP, reason="torch brings libgomp on Linux, which says what it has read")
def test_torch_s_openmp_reads_it_when_it_is_loaded() -> None:
    told = python(WHAT_OPENMP_HAS, OMP_DISPLAY_ENV="VERBOSE").stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told
    assert "GOMP_SPINCOUNT = '0'" in told


def test_these_tests_wait_asleep_too() -> None:
    assert os.environ[SETTING]  # conftest imports pomona before torch


def test_it_is_only_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "ACTIVE")
    wait_asleep()
    assert os.environ[SETTING] == "ACTIVE"
    monkeypatch.delenv(SETTING)
    wait_asleep()
    assert os.environ[SETTING] == "PASSIVE"
