"""Cut a Dask worker off while it maps, from the scheduler or from the shared disk: is a map lost, torn or made twice?

    python -m tests.faults.partitions

The worker is held at a point of its work: after some finished part, or before it publishes the map. Cut off from the
scheduler, it goes on, and the scene is given to a second worker. Cut off from the disk, which each worker has mounted
for itself, it fails, or has the disk again before it notices; then the same is asked for again. Linux only.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PARTS = 9  # of the map; then it is published
PATIENCE = 600.0  # seconds


def dask_setup(_: Any) -> None:
    """In a worker: wait at a point of the work until ``go`` is there, and write down what happens."""
    from regard.errors import OutputBusy
    from regard.io.cog_writer import RasterWriter
    from regard.mapping import journal

    marks = Path(os.environ["MARKS"])
    keep, publish, lock = journal.Journal.keep, RasterWriter._publish, journal.lock_alone

    def wait(at: int) -> None:
        if not (marks / "held").exists() and at == int((marks / "held_at").read_text()):
            (marks / "held").touch()
            until((marks / "go").exists)

    def slow_keep(parts: journal.Journal, pieces: Any) -> None:
        keep(parts, pieces)
        wait(parts.done)

    def slow_publish(writer: RasterWriter) -> None:
        wait(PARTS + 1)
        publish(writer)
        with (marks / "published").open("a") as file:
            file.write(f"{writer.path}\n")

    def noting_lock(*given: Any, **options: Any) -> None:
        try:
            lock(*given, **options)
        except OutputBusy:
            (marks / "busy").touch()
            raise

    journal.Journal.keep = slow_keep  # type: ignore[method-assign]
    RasterWriter._publish = slow_publish  # type: ignore[method-assign]
    journal.lock_alone = noting_lock


def until(seen: Callable[[], bool]) -> None:
    """Wait for something to happen."""
    began = time.monotonic()
    while not seen():
        time.sleep(0.05)
        if time.monotonic() - began > PATIENCE:
            raise SystemExit("waited too long")


class Line:
    """A connection to a scheduler that can be cut: the scheduler sees its end, the worker hears nothing any more."""

    def __init__(self, port: int) -> None:
        self.port, self.is_cut = port, False
        self.ends: list[socket.socket] = []  # at the scheduler
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            here = self.listening.accept()[0]
            self._wait()
            there = socket.create_connection(("127.0.0.1", self.port))
            self.ends.append(there)
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            content = b"?"
            while content:
                content = here.recv(2**16)
                self._wait()
                there.sendall(content) if content else there.shutdown(socket.SHUT_WR)

    def _wait(self) -> None:
        while self.is_cut:
            time.sleep(0.1)


@contextmanager
def worker(address: str, root: Path) -> Iterator[int]:
    """A Dask worker with mounts of its own; its process number."""
    words = ["unshare", "--mount", sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
    words += ["--nthreads", "1", "--no-dashboard", "--preload", "tests.faults.partitions", "--local-directory", "/tmp"]
    environment = {**os.environ, "MARKS": str(root / "marks")}
    with (root / "log").open("a") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def mount(process: int, *words: str) -> None:
    """Change the mounts that a worker sees."""
    subprocess.run(["nsenter", "--mount", f"--target={process}", *words], check=True)


class Trial:
    """A scheduler, and a scene on the disk that its workers share."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self.disk, self.marks, self.address = root, root / "disk", root / "marks", address
        self.target = self.disk / "maps" / "map.tif"
        self.pool = ThreadPoolExecutor(1)

    def clear(self, held_at: int) -> None:
        shutil.rmtree(self.target.parent, ignore_errors=True)
        shutil.rmtree(self.marks, ignore_errors=True)
        self.marks.mkdir()
        (self.marks / "held_at").write_text(str(held_at))

    def scene(self, target: Path) -> Any:
        """What is to be mapped."""
        from regard.io.source import Source
        from regard.mapping.batch import Scene
        from tests.support import map_options

        options = map_options(target, tile=64, overlap=32)
        return Scene(str(self.root / "model.safetensors"), Source.of(self.disk / "scene.tif"), options)

    def asked(self) -> Any:
        """The same command, whenever it is given; what is said to have failed, in a future."""
        from regard.mapping.batch import run_on_cluster

        scenes = [self.scene(self.target)]
        return self.pool.submit(lambda: [result.failed for result in run_on_cluster(scenes, self.address, 1)])

    def from_scheduler(self, held_at: int) -> str:
        """The first worker is cut off and goes on; the second is given the scene, and waits."""
        self.clear(held_at)
        line = Line(int(self.address.rpartition(":")[2]))
        with worker(line.address, self.root):
            failed = self.asked()
            until((self.marks / "held").exists)
            line.cut()
            with worker(self.address, self.root):
                until((self.marks / "busy").exists)
                (self.marks / "go").touch()
                return str(failed.result(PATIENCE)[0])

    def from_disk(self, process: int, held_at: int, *, is_back: bool) -> str:
        """The worker goes on without the disk, or once it ``is_back``; then the same is asked for once more."""
        self.clear(held_at)
        failed = self.asked()
        until((self.marks / "held").exists)
        mount(process, "umount", "--lazy", str(self.disk))
        if is_back:
            mount(process, "mount", "--bind", str(self.root / "shared"), str(self.disk))
        (self.marks / "go").touch()
        said = str(failed.result(PATIENCE)[0])
        if not is_back:
            mount(process, "mount", "--bind", str(self.root / "shared"), str(self.disk))
        again = self.asked().result(PATIENCE)[0]
        return f"{said}; the second time {again}" if again else said

    def row(self, cut: str, held_at: int, said: str) -> tuple[str, bool]:
        """A row of the table, and whether all went well."""
        published = len((self.marks / "published").read_text().splitlines())
        found = sorted(path.name for path in self.target.parent.iterdir())
        same = self.target.read_bytes() == (self.root / "whole.tif").read_bytes()
        well = same and published == 1 and found == ["map.qml", "map.tif", "map.tif.aux.xml"] and "\n" not in said
        return f"{cut} | {held_at} | {said} | {published} | {'yes' if same else 'NO'} | {' '.join(found)} |", well

    def rows(self) -> Iterator[tuple[str, bool]]:
        """All cuts."""
        for held_at in (1, PARTS + 1):
            yield self.row("scheduler", held_at, self.from_scheduler(held_at))
        with worker(self.address, self.root) as process:
            for is_back, held_at in itertools.product((False, True), (1, 5, PARTS + 1)):
                cut = "disk, back at once" if is_back else "disk"
                yield self.row(cut, held_at, self.from_disk(process, held_at, is_back=is_back))


def main() -> int:
    """Print what was seen."""
    import numpy as np
    import torch
    from distributed import LocalCluster

    from regard.checkpoints.file import save
    from regard.mapping.batch import predict_scene
    from tests.support import tiny, write_tif

    torch.set_num_threads(1)
    print("| cut off from | held at | said | published | same bytes | files |", flush=True)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("shared", "disk"):
            (root / name).mkdir()
        subprocess.run(["mount", "--bind", root / "shared", root / "disk"], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", root / "disk"], check=True)
        values = np.random.default_rng(0).integers(0, 256, size=(3, 300, 70), dtype=np.uint8)
        write_tif(root / "disk" / "scene.tif", values)
        save(tiny(), root / "model.safetensors")
        cluster = LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=50)
        stack.callback(cluster.close)
        seen = []
        trial = Trial(root, cluster.scheduler_address)
        predict_scene(trial.scene(root / "whole.tif"))
        for row, well in trial.rows():
            print(f"| {row}", flush=True)
            seen.append(well)
    print(
        f"{sum(seen)} of {len(seen)} times the map was published once, with the same bytes, and nothing else was left."
    )
    return 0 if all(seen) else 1


if __name__ == "__main__":
    if "--inside" not in sys.argv:
        inside = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "tests.faults.partitions", "--inside"]
        os.execvp(inside[0], inside)
    sys.exit(main())
