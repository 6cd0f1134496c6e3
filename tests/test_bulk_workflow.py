"""The bulk job of the Snakefile, with real worker processes, of which one is killed on purpose."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from processes import started
from small import random_head

from dinolizer.bulk import run
from dinolizer.bulk.run import read_listing
from dinolizer.bulk.table import Table, list_hash, read_rows
from dinolizer.cli import app
from dinolizer.model.backbones import load_backbone
from dinolizer.model.head import HeadCard, save_head
from dinolizer.paths import ROOT

COUNT = 8
# The command on the path of Snakemake. It has this process run its words in a fork, which has torch
# already, waits for it, and ends as it did.
CLIENT = """#!{python} -S
import os, socket, sys
with socket.create_connection(("127.0.0.1", {port})) as server:
    server.sendall(repr(sys.argv[1:]).encode() + b"\\n")
    code = int(server.makefile().readline())
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a thread takes the words of a `CLIENT`, and gives back the exit code."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = server.accept()
                Thread(target=answer, args=(connection,), daemon=True).start()

    Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def answer(connection: socket.socket) -> None:
    with connection:
        words = literal_eval(connection.makefile().readline())
        child = started(lambda: work(words))
        child.join()
        connection.sendall(b"%d\n" % child.exitcode)


def work(words: list[str]) -> None:
    """The command itself; the first worker on shard 1 keeps a part for each row, and kills itself
    as it is about to write its third one."""
    os.chdir(os.environ["CHECKOUT"])
    write = Table.write

    def write_or_die(table: Table, rows: list[dict[str, object]]) -> None:
        if len(table.parts) == 3:
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        write(table, rows)

    if "1/2" in words and not Path("killed").exists():
        run.PART_ROWS = 1
        Table.write = write_or_die  # type: ignore[method-assign, assignment]
    with Path("started").open("a") as file:
        print(*words, file=file)
    app(words)


@pytest.fixture
def checkout(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("Snakefile", "bulk.smk"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        (tmp_path / "in put").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "in put" / f"{number}.png")
    backbone = load_backbone("untrained-pocket", device="cpu")
    card = HeadCard("untrained-pocket", backbone.hash, "pristine", 224, 112, small="pad")
    save_head(tmp_path / "head.safetensors", random_head(backbone.dim), card)
    worker = tmp_path / "bin" / "dinolizer"
    worker.parent.mkdir()
    worker.write_text(CLIENT.format(python=sys.executable, port=port))
    worker.chmod(0o755)
    programs = (worker.parent, Path(sys.executable).parent, os.environ["PATH"])
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, programs)))
    monkeypatch.setenv("CHECKOUT", str(tmp_path))
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def bulk(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = "--model untrained-pocket --head head.safetensors --device cpu --masks"
    settings = ["pictures=in put", "shards=2", "out=found", f"localize={options}"]
    command = [sys.executable, "-m", "snakemake", *arguments, "bulk", "--config", *settings]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_a_killed_worker_is_started_again_and_every_image_has_one_row(checkout: Path) -> None:
    done = bulk(checkout, "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert (checkout / "killed").exists()
    started = (checkout / "started").read_text()
    assert [started.count(text) for text in ("--shard 1/2", "--shard 2/2", "merge found")] == [
        2,
        1,
        1,
    ]
    rows, settings = read_rows(checkout / "found" / "merged.parquet")
    assert rows["path"].to_pylist() == [f"{number}.png" for number in range(COUNT)]
    assert rows["error"].null_count == COUNT
    assert settings["list"] == list_hash(read_listing(checkout / "in put").names)
    whole = pd.concat(
        pd.read_parquet(checkout / "found" / "localized.parquet" / f"{number}-of-2.parquet")
        for number in (1, 2)
    )
    pd.testing.assert_frame_equal(
        rows.to_pandas(), whole.sort_values("path", ignore_index=True), check_dtype=False
    )
    assert len(list((checkout / "found" / "masks").glob("[!.]*.png"))) == COUNT


def test_the_slurm_profile_asks_for_a_gpu_and_cores_for_each_shard(checkout: Path) -> None:
    profile = yaml.safe_load((checkout / "profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm"
    planned = bulk(
        checkout, "--profile", "profiles/slurm", "--executor", "local", "--cores", "8", "-n"
    )
    assert planned.returncode == 0, planned.stderr
    shards = planned.stdout.split("rule bulk_shard:")[1:]
    assert len(shards) == 2
    for asked in ("gpu=1", "threads: 8", "mem_mb=32000", "slurm_partition=gpu", "runtime=720"):
        assert asked in shards[0]
    for rule in ("prepare", "evaluate"):
        assert profile["set-resources"][rule] == profile["set-resources"]["bulk_shard"]
        assert profile["set-threads"][rule] == 8


def test_without_images_it_says_how_to_name_them(checkout: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "bulk"]
    refused = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "--config pictures=FOLDER_OR_MANIFEST" in refused.stderr
