"""Two processes that share the images of val have the scores of one, to the last digit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.checkpoints.file import load
from regard.datasets.folder import folder
from regard.evaluation.evaluate import evaluate
from regard.training.record import read_metrics
from support import write_set

SCRIPT = """
import os, sys
from pathlib import Path
helpers, data, out, port = sys.argv[1:]
sys.path.insert(0, helpers)
from torch import distributed, set_num_threads
from regard.cli import main
from regard.datasets.folder import folder
from regard.training.train import train
from support import tiny
set_num_threads(1)
settings = {"steps": 4, "batch": 2, "crop": 32, "workers": 0, "evaluate_every": 2, "window": 36, "learning_rate": 0.01}
os.environ["MASTER_PORT"] = port
train(tiny(), folder(data), out, progress=False, devices=2, **settings)
if distributed.is_initialized():
    distributed.destroy_process_group()
for number in (1, 2):
    os.environ["MASTER_PORT"] = str(int(port) + number)
    try:
        main(["evaluate", out + "/last.safetensors", data, "--boundary", "2", "--json"])
    except SystemExit as end:
        print(end.code, flush=True)
    if os.environ["RANK"] == "1":
        Path(data, "images", "tile5.png").write_bytes(b"no image")
"""


def uneven(place: Path) -> Path:
    """Three images of val: the first process has two of them."""
    data = write_set(place / "toy", count=7)
    (data / "train.txt").write_text("tile0\ntile1\ntile2\ntile3\n")
    (data / "val.txt").write_text("tile4\ntile5\ntile6\n")
    return data


@pytest.mark.slow
def test_two_processes_score_as_one_does_in_training_and_alone(tmp_path: Path):
    """They are started as torchrun does it. At last the second finds a broken image: both end with its error."""
    data, out, helpers = uneven(tmp_path), tmp_path / "run", Path(__file__).parents[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        arguments = [sys.executable, "-c", SCRIPT, helpers, data, out, str(free.getsockname()[1])]
    images = {path.name: path.read_bytes() for path in (data / "images").iterdir()}
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "test"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen(arguments, env=os.environ | told | {"RANK": rank, "LOCAL_RANK": rank}, **pipes)
        for rank in ("0", "1")
    ]
    (first, complaint), (second, other) = (one.communicate(timeout=300) for one in both)
    for said, ended in ((complaint, first), (other, second)):
        assert "tile5.png is broken" in said and ended.splitlines()[-1] == "1"
    for name, content in images.items():
        (data / "images" / name).write_bytes(content)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = [evaluate(load(out / "last.safetensors", fast=True), folder(data), boundary=2).as_dict()]
    model = load(out / "last.safetensors")
    alone.append(evaluate(model.to(memory_format=torch.channels_last), folder(data), window=36).as_dict())
    torch.set_num_threads(threads)
    assert '"miou"' not in second  # the first tells what both have
    shared, in_training = json.loads(first.splitlines()[0]), read_metrics(out)[-1]
    assert in_training["step"] == 4 and in_training["images"] == 3
    stored = json.loads(json.dumps(alone))
    assert shared == {"window": 36, **stored[0]}  # the command tells the window that it took from the card
    assert {**in_training, "classes": stored[1]["classes"]} == {"step": 4, "window": 36, **stored[1]}
    assert [line for line in first.splitlines() + second.splitlines() if len(line) == 1] == ["0", "1", "0", "1"]
