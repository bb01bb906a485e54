"""Large tensors in blocks of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from mmap import PAGESIZE

import pytest

from pomona.cli.memory import SETTING, large_tensors_apart

LARGE = 2 << 20
WHERE_A_TENSOR_LIES = f"""
import sys
import pomona.cli.main
from pomona.cli.memory import large_tensors_apart
assert "torch" not in sys.modules, "the setting would come too late"
large_tensors_apart()
import torch
print([torch.empty({LARGE} // 4 + odd).data_ptr() % {PAGESIZE} for odd in (1, 3, 5)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch reads the setting on Linux only")
def test_the_command_has_large_tensors_apart() -> None:
    environment = {name: value for name, value in os.environ.items() if name != SETTING}
    done = subprocess.run([sys.executable, "-c", WHERE_A_TENSOR_LIES], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0, 0]"


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "0")
    large_tensors_apart()
    assert os.environ[SETTING] == "0"
