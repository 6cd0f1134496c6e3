"""The rooms of the package and what they import, read from the sources.

Run as a program it draws the picture in CONTRIBUTING.md anew.
"""

import ast
import re
from pathlib import Path

from dinolizer.paths import PACKAGE, ROOT

GUIDE = ROOT / "CONTRIBUTING.md"
PICTURE = re.compile(r"(?<=```mermaid\n)[^`]*(?=```)")
DOORS = {
    "cli": {"study", "bulk", "pocket", "training", "model", "data"},
    "study": {"pocket", "training", "model", "data"},
    "bulk": {"model", "data"},
    "pocket": {"model", "data"},
    "training": {"model", "data"},
    "model": {"data"},
    "data": set(),
}
"""What each room may import; all of them the BASE, which imports no room."""
BASE = {"errors", "options", "paths"}


def modules(room: str) -> list[str]:
    """Names of a room's modules and folders."""
    names = {
        path.relative_to(PACKAGE / room).parts[0].removesuffix(".py")
        for path in (PACKAGE / room).rglob("*.py")
    }
    return sorted(names - {"__init__"})


def imports(path: Path) -> set[str]:
    """Names of the package, as deep as they are written, that a module imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("dinolizer.")}


def rooms_of(path: Path) -> set[str]:
    """Rooms that a module imports from, its own apart."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts[0]
    rooms = {name.split(".")[1] for name in imports(path)}
    return (rooms & (DOORS.keys() | BASE)) - {inside}


def open_doors() -> dict[str, set[str]]:
    """From each room to those that any of its modules imports from."""
    doors: dict[str, set[str]] = {room: set() for room in DOORS}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room in doors:
            doors[room] |= rooms_of(path)
    return doors


def picture() -> str:
    """The house in Mermaid: an arrow from a room to one that it imports from, but for arrows that
    follow from others."""
    doors = {room: others - BASE for room, others in open_doors().items()}
    lines = ["flowchart LR"]
    for room in doors:
        names = modules(room) or ["the commands"]
        inside = "<br>".join(
            ", ".join(names[first : first + 4]) for first in range(0, len(names), 4)
        )
        lines.append(f'    {room}["<b>{room}</b><br>{inside}"]')
    for room, others in doors.items():
        indirect = set().union(*(_reached(doors, other) for other in others))
        lines += [f"    {room} --> {other}" for other in doors if other in others - indirect]
    return "\n".join(lines) + "\n"


def _reached(doors: dict[str, set[str]], room: str) -> set[str]:
    return doors[room].union(*(_reached(doors, other) for other in doors[room]))


if __name__ == "__main__":
    GUIDE.write_text(PICTURE.sub(lambda _: picture(), GUIDE.read_text(encoding="utf-8")))
