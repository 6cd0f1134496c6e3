"""The commands at the shell: a thin front door."""

import io
import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

import dinolizer
from dinolizer import options
from dinolizer.errors import InputError, printable, refuse, say
from dinolizer.options import Answering, answering
from dinolizer.paths import check_outputs
from dinolizer.study import commands

if TYPE_CHECKING:
    import pyarrow as pa

    from dinolizer.model.localization import Localization
    from dinolizer.model.localizer import Localizer


class _Commands(TyperGroup):
    """Commands that turn what the user gave wrong into one sentence on stderr and exit code 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # An empty name would be read as the current folder.
        if any(not arg or (arg.startswith("--") and arg.endswith("=")) for arg in args):
            raise typer.BadParameter("An argument is empty; give its value, or leave it out.")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            sentence = str(error)
        except BrokenPipeError:
            raise
        except ModuleNotFoundError as error:
            command = ctx.invoked_subcommand
            extra = command if command in ("serve", "train") else "study"
            sentence = (
                f"'dinolizer {command}' needs {error.name}, which is not installed; run: pip "
                f"install 'dinolizer[{extra}]'"
            )
        except OSError as error:
            name, reason = str(error.filename or "A file")[:200], error.strerror or error
            sentence = f"{name} cannot be used ({reason}); give another, or mend what is said."
        say(sentence)
        raise typer.Exit(1)


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(dinolizer.__version__)
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_version, help="Say the version.")
    ] = False,
) -> None:
    """Localize generative inpainting in photographs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does


def _localizer(chosen: Answering) -> "Localizer":
    from dinolizer.model.localizer import Localizer

    given = dict(vars(chosen))
    return Localizer.from_pretrained(given.pop("model"), **given)


@app.command()
@answering
def localize(
    chosen: Answering,
    paths: Annotated[
        list[Path], Argument(help="Image files; or one folder of images, or one CSV manifest.")
    ],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the results.")] = Path("localized"),
    as_json: Annotated[bool, Option("--json", help="Print a line of JSON for each image.")] = False,
    overwrite: options.Overwrite = False,
    masks: Annotated[bool, Option("--masks", help="Of many images: write the masks.")] = False,
    maps: Annotated[bool, Option("--maps", help="Of many images: write the maps.")] = False,
    shard: Annotated[str | None, Option(metavar="I/N", help="Of many images: a part.")] = None,
    add: Annotated[bool, Option("--add", help="Of many images: more than before.")] = False,
    max_failures: Annotated[int | None, Option(min=0, help="Unreadable images at most.")] = None,
) -> None:
    """Find what was inpainted in images.

    Image files get a mask (NAME.mask.png), a map (NAME.map.npz) and the settings with the score
    (NAME.json) each. The images of one folder or manifest, however many, get a row each in
    DIR/localized.parquet; run again, an interrupted run goes on."""
    many = [path for path in paths if _is_folder(path) or path.suffix.lower() == ".csv"]
    of_many = masks or maps or add or shard is not None or max_failures is not None
    refuse(
        {
            "A folder or manifest was given together with other paths; give it by itself, or image "
            "files.": many and len(paths) > 1,
            "--masks, --maps, --shard, --add and --max-failures go with one folder or manifest; "
            "image files get a mask and a map each.": of_many and not many,
            "--overwrite goes with image files; the results of one folder or manifest are "
            "continued.": overwrite and many,
        }
    )
    from dinolizer.model.files import localize_files, result_names, say_which
    from dinolizer.model.localization import result_paths

    if not many:
        images = result_names(paths)
        results = [path for name in images.values() for path in result_paths(out, name)]
        check_outputs(results, inputs=[*images, chosen.head, chosen.weights], overwrite=overwrite)
        failed = localize_files(
            _localizer(chosen),
            images,
            lambda result, name: result.save(out, name, overwrite=overwrite),
            as_json=as_json,
        )
        raise typer.Exit(int(bool(failed)))
    from dinolizer.bulk.run import read_listing, scan
    from dinolizer.bulk.table import TABLE
    from dinolizer.data.files import Shard

    part, listing = Shard.parse(shard or "1/1"), read_listing(many[0], out)
    for reason, names in listing.left_out.items():
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        say(f"left out {len(names)} {reason}: {shown}")
    localizer = _localizer(chosen)
    say_which(localizer)
    run: dict[str, Any] = {"masks": masks, "maps": maps, "max_failures": max_failures}
    table = scan(localizer, listing, out, shard=part, add=add, **run)
    rows = map(json.dumps, table.to_pylist()) if as_json else [_counted(out / TABLE, table)]
    for row in rows:
        typer.echo(row)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  # False, and no error, where a name is too long


def _counted(path: Path, table: "pa.Table") -> str:
    failed = table.filter(table["error"].is_valid()).to_pylist()
    # What a sentence says behind the name of its image is the same of many.
    reasons = Counter(row["error"].rpartition(Path(row["path"]).name)[2] for row in failed)
    lines = [f"{path}: {len(table)} images, of which {len(failed)} could not be read"]
    lines += [f"{count}: ...{of}" for of, count in reasons.most_common(10)]
    return "\n".join(map(printable, lines))


@app.command()
@answering
def report(
    chosen: Answering,
    photos: Annotated[list[Path], Argument(help="Image files, and folders of them.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the reports.")] = Path("reports"),
    overwrite: options.Overwrite = False,
) -> None:
    """Show what was inpainted in images, on a page each.

    NAME.report.html has the photograph, the map over it, the mask's outline, what they mean, and
    all settings; it needs no network, and prints. Of several images index.html lists the pages, the
    highest score first."""
    from dinolizer.data.files import list_images
    from dinolizer.model.files import localize_files, result_names
    from dinolizer.model.report import Entry, report_path, save_index, save_report

    paths = (list_images(path)[0] if _is_folder(path) else [path] for path in photos)
    images = result_names(Path(path) for of_one in paths for path in of_one)
    index = out / "index.html"
    pages = [*(report_path(out, name) for name in images.values()), *[index][: len(images) - 1]]
    check_outputs(pages, inputs=[*images, chosen.head, chosen.weights], overwrite=overwrite)
    entries: list[Entry] = []

    def save(result: "Localization", name: str) -> None:
        entries.append(save_report(result, out, name, overwrite=overwrite))

    failed = localize_files(_localizer(chosen), images, save)
    if entries and index in pages:
        save_index(index, entries, failed)
    if entries:
        typer.echo(f"Open {pages[-1]} in a browser.")
    raise typer.Exit(int(bool(failed)))


@app.command()
@answering
def serve(
    chosen: Answering,
    host: Annotated[str, Option(help="By default only this machine reaches it.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0: any that is free.")] = 8899,
) -> None:
    """Serve a page to drop pictures on, which answers with their reports."""
    import asyncio

    from dinolizer.model.serve import serve as run

    asyncio.run(run(_localizer(chosen), host, port))


@app.command()
@answering
def score(
    chosen: Answering,
    manifest: Annotated[Path, Argument(help="CSV manifest; see 'dinolizer manifest'.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for tables and figure.")],
    maps: Annotated[
        list[Path] | None,
        Option(metavar="DIR", help="Another method's maps, with a peer.yaml; may be repeated."),
    ] = None,
    split: Annotated[str, Option(help="Of the manifest; none that was trained on.")] = "test",
    overwrite: options.Overwrite = False,
) -> None:
    """Score a model, a head or a folder of maps on the images of a manifest.

    DIR gets the benchmark's table and figure, and a row for each image. With --maps alone no model
    answers; with --model or --head besides, all are scored, on the same images."""
    from dinolizer.study.scoring import FILES
    from dinolizer.study.scoring import score as run

    files = [out / name for name in FILES]
    check_outputs(files, inputs=[manifest, chosen.head, chosen.weights], overwrite=overwrite)
    localizer = None if maps and chosen == Answering() else _localizer(chosen)
    name = chosen.head.stem if chosen.head else localizer.backbone.spec.name if localizer else ""
    table = run(manifest, out, localizer, maps or (), name=name, split=split)
    typer.echo(table.round(2).to_string(index=False))
    typer.echo(f"{files[0]} has the lines of each kind of edit, {files[4]} the figure.")


@app.command()
@answering
def export(
    chosen: Answering,
    out: Annotated[Path, Option(metavar="FILE", help="The model, ending in .onnx.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Write a model as an ONNX file for other tools; its metadata say what it takes and gives."""
    inputs = [chosen.head, chosen.weights]
    check_outputs([out], ".onnx", inputs=inputs, overwrite=overwrite)
    from dinolizer.model.engines import export as run

    run(_localizer(chosen), out)


@app.command()
def merge(
    folders: Annotated[list[Path], Argument(help="The --out of 'localize'.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="A .parquet, or a .csv.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Check the table of a run, of all its shards, and write it as one file.

    Doubles, gaps, damage and shards of other settings are refused."""
    from dinolizer.bulk.table import merge as run

    typer.echo(_counted(out, run(folders, out, overwrite=overwrite)))


for command in (
    *(commands.fetch, commands.train, commands.calibrate),
    *(commands.manifest, commands.check, commands.verify),
):
    app.command()(command)
app.add_typer(commands.study, name="study", help="What the workflow of the notebooks calls.")
