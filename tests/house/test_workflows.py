"""The workflows of .github: pinned actions, no rights by default, and commands that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def test_there_are_workflows_for_tests_documentation_audit_and_release() -> None:
    assert [path.stem for path in WORKFLOWS] == ["audit", "docs", "release", "test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_hash_with_their_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for line in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_rights_are_given_to_jobs_alone_and_time_is_limited(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"] and job["timeout-minutes"] <= 60, name
        assert "secrets." not in str(job), name
        for step in job["steps"]:
            if "actions/checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, name


def test_commands_of_the_workflows_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    called = {word for line in re.findall(r"(?:run|command): make ([a-z -]+)", text) for word in line.split()}
    assert {"check", "test-oldest", "docs", "wheels", "sbom", "audit"} <= called <= targets


def test_a_report_of_a_fault_asks_for_the_system() -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    doctor = next(field for field in form["body"] if "regard doctor --json" in field["attributes"]["label"])
    assert doctor["validations"]["required"] is True


BUILD = {"hatchling", "tomlkit", "trove-classifiers"}  # what makes the package, beside what it needs


def pins_of(text: str) -> dict[str, str]:
    return {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE)}


def test_the_demo_is_pinned_by_hashes_to_the_tested_versions() -> None:
    tested = pins_of((ROOT / "constraints.txt").read_text())
    locked = (ROOT / ".ci" / "demo-linux-x86_64-py311.txt").read_text()
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in re.split(r"\n(?=\S)", locked.strip()))
    pins = pins_of(locked)
    assert {name: version for name, version in pins.items() if name not in BUILD} == {
        name: tested.get(name) for name in pins if name not in BUILD
    }
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split("[>=]", name)[0].lower().replace("_", "-") for name in declared} <= set(pins)
