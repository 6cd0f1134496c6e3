"""Damaged and hostile files for every reader: each is read, or refused in one sentence.

    python benchmarks/fuzz.py --seconds 60

Seeds are written by the package's own writers. Atheris (libFuzzer) mutates them towards lines of
the package that no input has reached yet, in a process of each reader's own. A reader may return,
or raise `InputError`, or an OSError that names a file (which the commands turn into a sentence);
another exception, seconds of work, a gigabyte of memory or a signal is a crash, and its input is
kept beside the table. Executions add up in the table: each run starts at other random numbers than
those before. Delete it after a crash was mended. See `readers.py`.
"""

import argparse
import gc
import os
import resource
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from dinolizer.errors import InputError

SECONDS, KILOBYTES = 5.0, 2**20
"""Processor time, and memory, that a small input may take."""
LARGEST = 2**15
"""Bytes of an input."""


@dataclass
class Reader:
    """What reads a file; ``wrap`` makes the file from what is mutated, as by right checksums."""

    name: str
    read: Callable[[Path], object]
    path: Path
    seeds: Sequence[bytes]
    wrap: Callable[[bytes], bytes] = lambda content: content
    crashes: list[str] = field(default_factory=list)

    def execute(self, content: bytes, keep: Path) -> str:
        """What is wrong with how an input was taken, or nothing; a wrong one is kept."""
        self.path.write_bytes(self.wrap(content))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, wrong = time.process_time(), ""
        try:
            self.read(self.path)
        except InputError:
            pass
        except OSError as error:
            wrong = "" if error.filename else f"{error!r} without the name of a file"
        except (Exception, SystemExit) as error:
            line = error.__traceback__
            while line and line.tb_next:
                line = line.tb_next
            at = f"{Path(line.tb_frame.f_code.co_filename).name}:{line.tb_lineno}" if line else ""
            wrong = f"{type(error).__name__} in {at}"
        if (taken := time.process_time() - start) > SECONDS:
            wrong = f"took {taken:.0f} s"
        if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) > KILOBYTES:
            wrong = f"took {grown >> 10} MiB"
        if wrong and wrong not in self.crashes:
            self.crashes.append(wrong)
            print(f"{self.name}: {wrong}", flush=True)
            self.keep(keep, wrong)
        return wrong

    def keep(self, folder: Path, wrong: str) -> None:
        """Keep the present input of the reader, called after what is wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{self.name}-{wrong}")
        shutil.copyfile(self.path, folder / f"{name}{self.path.suffix}")


def mend_png(content: bytes) -> bytes:
    """A PNG file with the right checksum at each chunk: else all changes are noticed at once."""
    mended, at = bytearray(content), 8
    while at + 12 <= len(mended):
        end = at + 8 + int.from_bytes(mended[at : at + 4])
        mended[end : end + 4] = zlib.crc32(mended[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(mended) if content.startswith(b"\x89PNG") else content


def in_a_process(
    reader: Reader, seconds: float, keep: Path, seed: int = 0, most: int = -1
) -> tuple[int, int]:
    """Fuzz a reader in a process of its own, which may die, for so long or ``most`` executions;
    numbers of executions and crashes."""
    import atheris

    context = get_context("fork")
    done = context.Array("q", 2, lock=False)  # executions, crashes
    corpus = reader.path.with_name(f"{reader.path.name}-corpus")
    corpus.mkdir()
    for number, content in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(content)

    def once(content: bytes) -> None:
        reader.execute(content, keep)
        done[:] = [done[0] + 1, len(reader.crashes)]

    def work() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders say much of damage
        gc.freeze()
        limits = {
            "max_total_time": max(seconds, 1),  # 0 is no limit to libFuzzer
            "max_len": LARGEST,
            "seed": seed % 2**31 + 1,
            "runs": most,
        }
        limits |= {"timeout": 60, "rss_limit_mb": 0, "detect_leaks": 0}  # `execute` measures both
        options = [f"-{name}={int(limit)}" for name, limit in limits.items()]
        atheris.Setup(["fuzz", *options, str(corpus)], once)
        atheris.Fuzz()  # ends the process

    child = context.Process(target=work)
    child.start()
    child.join(seconds + 120)
    if died := child.exitcode != 0:
        child.kill()
        reader.keep(keep, f"exit {child.exitcode}")
    return done[0], done[1] + died


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz all readers in turn and write a table; the exit code says whether there was a crash."""
    parser = argparse.ArgumentParser(description="Fuzz every reader of the package.")
    parser.add_argument("--seconds", type=float, default=60, help="of all readers together")
    parser.add_argument("--most", type=int, default=-1, help="executions of each reader")
    parser.add_argument("--readers", nargs="*", help="only those of these names")
    parser.add_argument("--out", type=Path, default=Path("results/bench/fuzz.csv"))
    given = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # the fork of a process with more may never end
    import atheris

    with atheris.instrument_imports(include=["dinolizer"]):
        from readers import readers

    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        os.environ["DINOLIZER_CACHE"] = f"{scratch}/cache"
        chosen = [r for r in readers(Path(scratch)) if r.name in (given.readers or [r.name])]
        table = pd.DataFrame(0, [reader.name for reader in chosen], ["executions", "crashes"])
        if given.out.is_file():
            table = pd.read_csv(given.out, index_col=0).combine_first(table).astype(int)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        for reader in chosen:
            before = int(table.loc[reader.name, "executions"])
            share, keep = given.seconds / len(chosen), given.out.with_name("crashes")
            table.loc[reader.name] += np.array(
                in_a_process(reader, share, keep, before, given.most)
            )
            table.to_csv(given.out, index_label="reader")
    print(table.to_string())
    return int(table["crashes"].sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
