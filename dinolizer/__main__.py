"""``python -m dinolizer``, which is also what ``torchrun -m dinolizer`` starts."""

from dinolizer.cli import app

app()
