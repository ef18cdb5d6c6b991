"""What a SOURCE.txt says of the data it lies with: origin, licence, credit."""

from __future__ import annotations

import re
from pathlib import Path

FILE = "SOURCE.txt"
STATED = ("origin", "licence", "credit")
HEAD = re.compile(r"([A-Za-z][\w ]{0,24}):(?:\s+|$)")


def stated(root: Path) -> dict[str, str]:
    """The parts ``Origin:``, ``Licence:`` (or ``License:``) and ``Credit:`` of the SOURCE.txt of some data.

    ``root`` is their folder, or the file that describes them. A part ends before an empty line or the next ``Name:``;
    a text that begins without a name begins with the origin, and one that names none of them is the origin. What is
    not stated is left out; so is all without a readable file.
    """
    path = (root if root.is_dir() else root.parent) / FILE
    try:
        lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
    except (OSError, ValueError):
        return {}
    found, name = dict[str, list[str]](), "origin"
    for line in map(str.strip, lines):
        head = HEAD.match(line)
        if head or not line:
            name = head[1].lower().replace("license", "licence") if head else ""
        text = line[head.end() :] if head else line
        found.setdefault(name, []).extend([text] if text else [])
    named = {name: " ".join(found[name]) for name in STATED if found.get(name)}
    whole = " ".join(" ".join(lines).split())
    return named or ({"origin": whole} if whole else {})
