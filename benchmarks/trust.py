"""What was tried to lose, falsify or misread results, and how often it came off, in one table.

    PYTHONPATH=tests python benchmarks/trust.py

Work is killed at random moments, finds no room, no permission or another process beside it, and is
then done again: no file may be half-written in between, and all must be there in the end, the same
as if it had not been disturbed. `fuzz.py` must have run before.
"""

import argparse
import ast
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import requests  # noqa: F401 (what a download imports; another user may not read it)
from checkpoints import build_small_bfree, randomize, save_bfree
from PIL import Image
from processes import started
from safetensors.torch import load_file
from servers import MD5, serving
from small import random_image, small_backbone, small_localizer, small_manifest

from dinolizer.bulk import run as bulk
from dinolizer.bulk.run import read_listing
from dinolizer.bulk.table import read_rows
from dinolizer.data.fetch import download
from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError
from dinolizer.model import published
from dinolizer.model.specs import BACKBONES
from dinolizer.paths import ROOT, read_checked
from dinolizer.study import results
from dinolizer.study.cache import cached
from dinolizer.study.results import check
from dinolizer.training.recipes import train
from dinolizer.training.tokens import extract

READ: dict[str, Callable[[Path], object]] = {
    ".png": read_image,
    ".npz": lambda path: dict(np.load(path)),
    ".json": lambda path: json.loads(path.read_text()),
    ".safetensors": lambda path: (read_checked if path.parent.name == "tokens" else load_file)(
        path
    ),
    ".csv": pd.read_csv,
    ".checkpoint": read_checked,
    ".tokens": read_checked,
}
"""What must succeed with a file, by its suffix."""


def timed(name: str) -> bool:
    """Whether a file holds seconds or dates, and so is not the same each time."""
    return name.endswith(".json") or (name.startswith("run/") and name.endswith(".parquet"))


@dataclass(frozen=True)
class Work:
    """Something that leaves files in a folder, and goes on where it stopped."""

    name: str
    do: Callable[[Path], object]


def works(inputs: Path, url: str) -> list[Work]:
    """Everything that writes what cannot be lost, in small."""
    for number in range(6):
        write_image(inputs / "photos" / f"{number}.png", random_image(60 + number, 70))
    photos = sorted((inputs / "photos").iterdir())
    manifest = read_manifest(small_manifest(inputs / "set"))
    small = {"architecture": build_small_bfree, "window": 56, "stride": 28}
    BACKBONES["bfree"] = BACKBONES["bfree"].__class__(**{**vars(BACKBONES["bfree"]), **small})
    weights = save_bfree(inputs / "model.pth", randomize(build_small_bfree()))
    localizer, _ = small_localizer()
    bulk.PART_ROWS = 1

    def localize(folder: Path) -> None:
        for path in photos:
            localizer(path).save(folder, path.stem, overwrite=True)

    def scan(folder: Path) -> None:
        bulk.scan(localizer, read_listing(inputs / "photos"), folder / "run", masks=True)

    def fit(folder: Path) -> None:
        out = folder / "head.safetensors"
        options = {"device": "cpu", "epochs": 3, "batch": 4, "workers": 0}
        train(manifest, small_backbone(), out, overwrite=True, **options)

    def tokens(folder: Path) -> None:
        backbone = small_backbone()
        for number in range(6):
            extract(backbone, [random_image(56, 56 + 14 * number)])

    def tables(folder: Path) -> None:
        for number in range(6):
            frame = pd.DataFrame({"iou": np.random.default_rng(number).random(2000)})
            cached("rows", str(number), frame.copy)

    def fetch(folder: Path) -> None:
        download(url, folder / "weights.zip", MD5)

    def convert(folder: Path) -> None:
        published.fetch("bfree", weights)

    named = {
        "localize of image files": localize,
        "bulk run": scan,
        "training of a head": fit,
        "cache of tokens": tokens,
        "cache of tables": tables,
        "download": fetch,
        "conversion of weights": convert,
    }
    return [Work(name, do) for name, do in named.items()]


def child(work: Work, folder: Path, before: Callable[[], object] = lambda: None):  # type: ignore[no-untyped-def]
    """A process that does the work as the commands do: SIGTERM ends it as Ctrl-C does, and errors
    are sentences; with any other error its exit code is 1."""

    def do() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.environ["DINOLIZER_CACHE"] = str(folder / "cache")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        before()
        try:
            work.do(folder)
        except (InputError, OSError, KeyboardInterrupt):
            os._exit(3)

    folder.mkdir(exist_ok=True)
    return started(do)


def visible(folder: Path) -> dict[str, Path]:
    """Files of a folder by their names, but for drafts, locks and downloads that go on."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
    return {str(path.relative_to(folder)): path for path in files if not path.name.startswith(".")}


def half_written(folder: Path) -> list[str]:
    """Files under their own name that are not whole."""
    wrong = []
    for name, path in visible(folder).items():
        try:
            if path.suffix == ".parquet":
                read_rows(path) if name.startswith("run/") else read_checked(path)
            elif path.suffix in READ:
                READ[path.suffix](path)
            if path.suffix == ".zip":
                assert f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}" == MD5
        except Exception as error:
            wrong.append(f"{name}: {error!r}")
    return wrong


def different(folder: Path, reference: Path) -> list[str]:
    """Files that are there in one folder alone or, where they hold no time, differ."""
    one, other = visible(folder), visible(reference)
    wrong = sorted(one.keys() ^ other.keys())
    for name in one.keys() & other.keys():
        if name.startswith("run/") and name.endswith(".parquet"):
            rows = [pq.read_table(f).drop_columns(["seconds"]) for f in (one[name], other[name])]
            wrong += [name] * (not rows[0].equals(rows[1]))
        elif not timed(name):
            wrong += [name] * (one[name].read_bytes() != other[name].read_bytes())
    return wrong


def disturbed(work: Work, scratch: Path, count: int, rng: random.Random) -> dict[str, list[list]]:
    """Disturb a work in each way; for each attempt, what was wrong then or in the end."""
    reference, start = scratch / "reference", time.monotonic()
    assert not join(child(work, reference)), f"{work.name} fails undisturbed"
    duration = time.monotonic() - start

    def again(folder: Path) -> list[str]:
        code = join(child(work, folder))
        wrong = [f"{work.name} ends with {code}"] * bool(code) + different(folder, reference)
        shutil.rmtree(folder)
        return wrong

    def fresh() -> Path:
        return scratch / f"{rng.getrandbits(64):x}"

    def killed(folder: Path, how: signal.Signals) -> list[str]:
        process = child(work, folder)
        process.join(rng.uniform(0, duration))
        with suppress(ProcessLookupError):  # done already
            os.kill(process.pid, how)
        code = join(process)
        return half_written(folder) + [f"exit code {code}"] * (code not in (0, 3, -how))

    def limited(size: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    kills: list[list[str]] = []
    while len(kills) < count:  # three in a row
        folder = fresh()
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            kills.append(killed(folder, how))
        kills[-1] += again(folder)
    full, forbidden, two = [], [], []
    for _ in range(max(1, count // 15)):
        folder, size = fresh(), rng.choice((0, 100, 1000, 4000, 20_000, 2**20))
        code = join(child(work, folder, lambda size=size: limited(size)))
        full.append(half_written(folder) + [f"exit code {code}"] * (code not in (0, 3)))
        full[-1] += again(folder)
        folder = fresh()
        both = [child(work, folder), child(work, folder)]
        codes = [join(process) for process in both]
        two.append(half_written(folder) + [f"exit codes {codes}"] * (not {*codes} <= {0, 3}))
        two[-1] += again(folder)
    folder = fresh()
    folder.mkdir(mode=0o555)
    code = join(child(work, folder, lambda: os.getuid() or os.seteuid(65534)))
    forbidden.append([f"exit code {code}"] * (code != 3) + sorted(visible(folder)) + again(folder))
    ways = ("killed at a random moment", "disk full", "two processes at once", "folder read-only")
    return dict(zip(ways, (kills, full, two, forbidden), strict=True))


def join(process) -> int:  # type: ignore[no-untyped-def]
    """The exit code of a process, when it has one."""
    process.join()
    return int(process.exitcode)


def bytes_that_differ(work: Work, scratch: Path) -> tuple[int, int]:
    """Do a work twice: bytes of its files without times, and how many of them differ."""
    for name in ("one", "other"):
        assert not join(child(work, scratch / name))
    files = [visible(scratch / name) for name in ("one", "other")]
    total = wrong = 0
    for name in sorted(files[0].keys() | files[1].keys()):
        if timed(name):
            continue
        first, second = (f[name].read_bytes() if name in f else b"" for f in files)
        total += len(first)
        wrong += abs(len(first) - len(second)) + sum(
            a != b for a, b in zip(first, second, strict=False)
        )
    return total, wrong


def sentences() -> list[str]:
    """Names of the tests, one per bad input, that assert the sentence of an `InputError`."""
    asserting = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = ast.unparse(node)
                if "raises(InputError, match=" in text or "refused(" in text:
                    asserting.add(f"{path.relative_to(ROOT)}::{node.name}")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = listed.stdout.splitlines()
    return [line for line in lines if line.partition("[")[0] in asserting]


def failures(tests: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()[-1]
    words = last.replace(",", "").split()
    assert f"{len(tests)} passed" in last or "failed" in words, last
    return int(words[words.index("failed") - 1]) if "failed" in words else 0


def edits_unnoticed(folder: Path, scratch: Path, count: int, rng: random.Random) -> int:
    """Edit one digit of a table, or one pixel of a figure, in a copy; how many pass the check."""
    copy = shutil.copytree(folder, scratch / "edited")
    missed = 0
    for number in range(count):
        path = rng.choice(sorted(copy.rglob("*.png" if number % 2 else "*.csv")))
        whole = path.read_bytes()
        if number % 2:
            with Image.open(path) as image:
                at = rng.randrange(image.width), rng.randrange(image.height)
                image.putpixel(at, image.getpixel(at) ^ 1)  # type: ignore[operator]
                image.save(path)
        else:
            at = rng.choice([place for place, byte in enumerate(whole) if 48 <= byte <= 57])
            path.write_bytes(whole[:at] + bytes([48 + (whole[at] - 47) % 10]) + whole[at + 1 :])
        missed += not check(copy)
        path.write_bytes(whole)
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what keeps results safe.")
    parser.add_argument("--count", type=int, default=30, help="kills of each work")
    parser.add_argument("--quick", action="store_true", help="without the tests of bad inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench" / "trust.csv")
    given = parser.parse_args(arguments)
    rng, lines = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as scratch, serving() as server:
        Path(scratch).chmod(0o755)
        for number, work in enumerate(works(Path(scratch) / "inputs", server.url)):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            for way, attempts in disturbed(work, folder, given.count, rng).items():
                lost = sum(map(bool, attempts))
                print(f"{work.name}, {way}: {len(attempts)}, {lost} lost", flush=True)
                for text in {text for attempt in attempts for text in attempt}:
                    print(text)
                lines.append((f"{work.name}: {way}", "attempts", len(attempts), lost))
            total, wrong = bytes_that_differ(work, folder)
            lines.append((f"{work.name}: done twice", "bytes compared", total, wrong))
        folder = ROOT / "results" / "pocket"
        number = len(results.tables(folder))
        lines.append(("verify --quick of results/pocket", "tables", number, len(check(folder))))
        edits = edits_unnoticed(folder, Path(scratch), 2 * given.count, rng)
        what = "verify --quick after an edit of a digit or a pixel"
        lines.append((what, "edits", 2 * given.count, edits))
    fuzzed = given.out.with_name("fuzz.csv")
    if fuzzed.is_file():
        table = pd.read_csv(fuzzed)
        counts = [int(table[column].sum()) for column in ("executions", "crashes")]
        lines.append((f"fuzzing of {len(table)} readers (fuzz.csv)", "executions", *counts))
    if not given.quick:
        tests = sentences()
        what = "bad inputs answered by the sentence a test expects"
        lines.append((what, "tests", len(tests), failures(tests)))
    table = pd.DataFrame(lines, columns=["tried", "counted", "number", "failed"])
    given.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.out, index=False)
    print(table.to_string(index=False))
    return int(table["failed"].sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
