"""One of several parts of a list of pictures, each for a process or a machine."""

import hashlib
import re
from dataclasses import dataclass

from dinolizer.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``; which images are in it their names alone decide."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``"2/4"``, the second of four."""
        digits = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
        number, count = map(int, digits.groups()) if digits else (0, 0)
        if not 1 <= number <= count:
            raise InputError(f"The shard is {text[:40]!r}, but it must be NUMBER/COUNT, as in 1/4.")
        return cls(number, count)

    def has(self, name: str) -> bool:
        """Whether an image of that name is in this shard: by SHA-256 of the name, modulo count."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


WHOLE = Shard(1, 1)
