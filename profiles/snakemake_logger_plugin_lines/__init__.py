"""What `make results` shows of Snakemake: a line for each step that is done, and what fails.

Found by its name: ``PYTHONPATH=profiles snakemake --logger lines``.
"""

import logging
import sys
import time

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 1:34."""
    return "{}:{:02}".format(*divmod(round(seconds), 60))


class LogHandler(LogHandlerBase):
    """Lines such as ``[ 7/16] 05-dinov2-vs-dinov3 1:34, about 6:10 left``, on stderr. The time left
    is as if the steps to come took as long as those that are done."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.jobs: dict[int, tuple[str, float]] = {}
        self.total = self.done = 0

    def emit(self, record: logging.LogRecord) -> None:
        match getattr(record, "event", None):
            case LogEvent.RUN_INFO:
                self.total = record.stats["total"] - record.stats.get("all", 0)  # which is no step
            case LogEvent.JOB_INFO:
                self.jobs[record.jobid] = record.rule_name, time.monotonic()
            case LogEvent.JOB_FINISHED:
                self.step(*self.jobs[record.job_id])
            case LogEvent.JOB_ERROR:
                self.write(f"{record.rule_name} failed; what it said is above.")
            case None | LogEvent.ERROR if record.levelno >= logging.ERROR:
                self.write(self.format(record))

    def step(self, rule: str, begun: float) -> None:
        """The line for a step that is done."""
        if rule == "all":
            return
        self.done += 1
        now, number = time.monotonic(), f"{self.done:{len(str(self.total))}}"
        left = (now - self.begun) / self.done * (self.total - self.done)
        rest = f", about {clock(left)} left" if self.done < self.total else ""
        self.write(f"[{number}/{self.total}] {rule} {clock(now - begun)}{rest}")

    def write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
