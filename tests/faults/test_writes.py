"""Each write of a command fails in turn; what is on the disk stays whole, and the same command finishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="needs Linux and a C compiler (cc), for the library that lets writes fail",
)


def trials(*arguments: str) -> dict[str, int]:
    """What the last line of the command sums up; it fails where a file was torn, or an answer lost or unclear."""
    command = [sys.executable, "-m", "tests.faults.writes", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_files_of_a_photograph_stay_whole_whatever_call_fails() -> None:
    assert trials("labels", "--every", "7", "--faults", "killed,full,EIO")["points"] > 30


@pytest.mark.nightly
@pytest.mark.parametrize("job", ["predict", "several", "polygons", "train", "pages", "scores", "explain"])
def test_the_files_of_a_command_stay_whole_whatever_call_fails(job: str) -> None:
    assert trials(job, "--every", "41")["points"] > 10


@pytest.mark.nightly
@pytest.mark.parametrize("job", ["onnx", "openvino", "program"])
def test_exported_files_stay_whole_whatever_call_fails(job: str) -> None:
    assert trials(job, "--every", "5", "--faults", "killed,full,EIO")["points"] > 5
