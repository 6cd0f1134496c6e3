"""The commands at the shell: a thin front door."""

import hashlib
import io
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.core import TyperGroup

import dinolizer
from dinolizer.errors import InputError, printable
from dinolizer.paths import check_outputs

if TYPE_CHECKING:
    from dinolizer.bulk.listing import Listing
    from dinolizer.model.localization import Localization
    from dinolizer.model.localizer import Localizer

SLOW = 200
"""Windows of an image over which a faster mode is named."""

# What needs torch is imported inside the commands: --help answers at once. So these choices are
# written out; a test compares them with the tables that they are the keys of.
# fmt: off
ModelName = Literal[
    "dinolizer", "pocket", "pocket-learned", "pocket-rotary", "bfree",
    "dinov2-small", "dinov2-base", "dinov2-large", "dinov3-small", "dinov3-base", "dinov3-large",
    "untrained-pocket", "untrained-pocket-learned", "untrained-pocket-rotary", "untrained-bfree",
    "untrained-dinov2-small", "untrained-dinov2-base", "untrained-dinov2-large",
    "untrained-dinov3-small", "untrained-dinov3-base", "untrained-dinov3-large",
]
DatasetName = Literal[
    "bfree", "tgif", "cocoglide", "sagid", "btb", "brgen", "opensdi", "autosplice", "magicbrush",
    "inpaintings", "imdl", "csv",
]
# fmt: on
FetchName = Literal["dinolizer", "bfree", "cocoglide", "photos", "bsds", "inpaintings"]
ModeName = Literal["exact", "half", "tiles", "whole"]
Precision = Literal["float32", "bfloat16", "float16"]
Small = Literal["resize", "pad"]
Policy = Literal["pristine", "fake", "three-class"]
VariantName = Literal["v1", "v2"]

# Options that several commands have.
Model = Annotated[
    ModelName,
    Option(
        "--model",
        metavar="NAME",
        help="'dinolizer' and 'bfree' once they are fetched, 'pocket', 'pocket-learned', "
        "'pocket-rotary', 'dinov2-base', 'dinov3-base', either also '-small' or '-large', or "
        "'untrained-' and one of these.",
    ),
]
File = Annotated[Path | None, Option(metavar="FILE", help="By default the model's published one.")]
Answering = Annotated[
    ModelName | None,
    Option(metavar="NAME", help="By default 'dinolizer' where it was fetched, else 'pocket'."),
]
Mode = Annotated[ModeName, Option(help="All but 'exact' take fewer windows.")]
Threshold = Annotated[float | None, Option(min=0, max=1, help="Default: the head's.")]
Device = Annotated[str | None, Option(help="'cpu' or 'cuda'; by default the GPU if there is one.")]
Precise = Annotated[Precision, Option(help="Of the backbone's products; faster on some hardware.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace results that are there already.")]
Profile = Annotated[str, Argument(metavar="PROFILE", help="A profile's name, or its YAML file.")]


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
        except OSError as error:
            name, reason = str(error.filename)[:200], error.strerror or error
            sentence = f"{name} cannot be used ({reason}); give another, or mend what is said."
        typer.echo(_line(sentence), err=True)
        raise typer.Exit(1)


def _line(sentence: str) -> str:
    return f"dinolizer: {printable(sentence)}"


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
study = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(study, name="study", help="What the workflow of the notebooks calls.")


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


@app.command()
def localize(
    paths: Annotated[
        list[Path], Argument(help="Image files; or one folder of images, or one CSV manifest.")
    ],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the results.")] = Path("localized"),
    model: Answering = None,
    head: File = None,
    weights: File = None,
    mode: Mode = "exact",
    threshold: Threshold = None,
    stride: Annotated[int | None, Option(min=1, help="In pixels; default: the head's.")] = None,
    small: Annotated[Small | None, Option(help="Under a window; default: the head's.")] = None,
    device: Device = None,
    precision: Precise = "float32",
    as_json: Annotated[bool, Option("--json", help="Print a line of JSON for each image.")] = False,
    overwrite: Overwrite = False,
    masks: Annotated[bool, Option("--masks", help="Of many images: write the masks.")] = False,
    maps: Annotated[bool, Option("--maps", help="Of many images: write the maps.")] = False,
    shard: Annotated[str | None, Option(metavar="I/N", help="Of many images: a part.")] = None,
    add: Annotated[bool, Option("--add", help="Of many images: more than before.")] = False,
    max_failures: Annotated[int | None, Option(min=0, help="Unreadable images at most.")] = None,
) -> None:
    """Find what was inpainted in images.

    Image files get a mask (NAME.mask.png), a map (NAME.map.npz) and the settings with the score
    (NAME.json) each. The images of one folder or manifest, however many, get a row each in
    DIR/localized.parquet; run again, an interrupted run goes on.
    """
    # os.path.isdir is False, and no error, where a name is too long.
    many = [path for path in paths if os.path.isdir(path) or path.suffix.lower() == ".csv"]  # noqa: PTH112
    if many and len(paths) > 1:
        raise InputError(
            f"{many[0]} was given together with other paths; give one folder or one manifest by "
            "itself, or image files."
        )
    if not many and (masks or maps or add or shard is not None or max_failures is not None):
        raise InputError(
            "--masks, --maps, --shard, --add and --max-failures go with one folder or manifest; "
            "image files get a mask and a map each."
        )
    if many and overwrite:
        raise InputError(
            "--overwrite goes with image files; the results of one folder or manifest are continued"
        )
    from dinolizer.bulk.listing import Shard, read_listing
    from dinolizer.bulk.run import scan
    from dinolizer.model.localization import result_paths
    from dinolizer.model.localizer import Localizer

    images, listing = _named(paths), None
    if many:
        part = Shard.parse(shard or "1/1")
        listing = read_listing(many[0], out)
        _say_left_out(listing)
    else:
        results = [path for name in images.values() for path in result_paths(out, name)]
        check_outputs(results, inputs=[*images, head, weights], overwrite=overwrite)
    localizer = Localizer.from_pretrained(
        model,
        head,
        device,
        weights,
        mode=mode,
        precision=precision,
        threshold=threshold,
        stride=stride,
        small=small,
    )
    if listing is None:
        failed = _localize_files(
            localizer,
            images,
            as_json,
            lambda result, name: result.save(out, name, overwrite=overwrite),
        )
        if failed:
            raise typer.Exit(1)
        return
    typer.echo(_which(localizer), err=True)
    run: dict[str, Any] = {"masks": masks, "maps": maps, "add": add, "max_failures": max_failures}
    table = scan(localizer, listing, out, shard=part, **run)
    if as_json:
        for row in table.to_pylist():
            typer.echo(json.dumps(row))
    else:
        typer.echo(_counted(out / "localized.parquet", table))


def _which(localizer: "Localizer") -> str:
    """Which model answers, and what its reader must know."""
    spec = localizer.backbone.spec
    return _line(f"model '{spec.name}'. {spec.caution}")


def _counted(path: Path, table: Any) -> str:
    failed = len(table) - table["error"].null_count
    return f"{path}: {len(table)} images, of which {failed} could not be read"


def _say_left_out(listing: "Listing") -> None:
    for reason, names in listing.left_out.items():
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        typer.echo(_line(f"left out {len(names)} {reason}: {shown}"), err=True)


def _localize_files(
    localizer: "Localizer",
    images: dict[Path, str],
    as_json: bool,
    save: Callable[["Localization", str], object],
) -> list[str]:
    """Save what is found, and say a line, for each image; the sentences on those that failed."""
    from tqdm.auto import tqdm

    failed: list[str] = []
    said = False
    for path, name in tqdm(images.items(), disable=len(images) == 1):
        try:
            _say_slow(localizer, path)
            result = localizer(path, progress=True)
            save(result, name)
        except InputError as error:
            failed.append(str(error))
            tqdm.write(_line(str(error)), file=sys.stderr)
            continue
        if not said:
            tqdm.write(_which(localizer), file=sys.stderr)
            said = True
        renamed = "" if name == path.stem else f"  saved as {name}"
        line = f"{path}  score {result.score:.3f}  predicted area {result.predicted_area:.1%}"
        tqdm.write(json.dumps(result.summary()) if as_json else line + renamed)
    return failed


def _say_slow(localizer: "Localizer", path: Path) -> None:
    """Say what a faster mode would save, before an image of many windows."""
    from tqdm.auto import tqdm

    from dinolizer.data.images import read_header

    header = read_header(path)
    passes, tiles = (
        other.plan(header.height, header.width).passes
        for other in (localizer, localizer.with_settings(mode="tiles"))
    )
    if passes > max(SLOW, tiles):
        fewer = f"--mode tiles takes {tiles}, and gives a somewhat different map"
        tqdm.write(_line(f"{path} has {passes} windows; {fewer}."), file=sys.stderr)


@app.command()
def report(
    photos: Annotated[list[Path], Argument(help="Image files, and folders of them.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the reports.")] = Path("reports"),
    model: Answering = None,
    head: File = None,
    weights: File = None,
    mode: Mode = "exact",
    threshold: Threshold = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Show what was inpainted in images, on a page each.

    NAME.report.html has the photograph, the map over it, the mask's outline, what they mean, and
    all settings; it needs no network, and prints. Of several images index.html lists the pages, the
    highest score first.
    """
    from dinolizer.data.files import list_images
    from dinolizer.model.localizer import Localizer
    from dinolizer.model.report import Entry, report_path, save_index, save_report

    paths = (list_images(path)[0] if os.path.isdir(path) else [path] for path in photos)  # noqa: PTH112
    images = _named(Path(path) for of_one in paths for path in of_one)
    index = out / "index.html"
    pages = [*(report_path(out, name) for name in images.values()), *[index][: len(images) - 1]]
    check_outputs(pages, inputs=[*images, head, weights], overwrite=overwrite)
    options: dict[str, Any] = {"mode": mode, "threshold": threshold}
    localizer = Localizer.from_pretrained(model, head, device, weights, **options)
    entries: list[Entry] = []

    def save(result: "Localization", name: str) -> None:
        entries.append(save_report(result, out, name, overwrite=overwrite))

    failed = _localize_files(localizer, images, False, save)
    if entries and index in pages:
        save_index(index, entries, failed)
    if entries:
        typer.echo(f"Open {pages[-1]} in a browser.")
    if failed:
        raise typer.Exit(1)


def _named(paths: Iterable[Path]) -> dict[Path, str]:
    """Each image with the name of its results: its stem, and where two have it a hash besides."""
    paths = list(dict.fromkeys(paths))
    number = Counter(path.stem.lower() for path in paths)
    hashes = {path: hashlib.sha256(os.fsencode(path)).hexdigest()[:8] for path in paths}
    return {
        path: path.stem if number[path.stem.lower()] == 1 else f"{path.stem}-{hashes[path]}"
        for path in paths
    }


@app.command()
def merge(
    folders: Annotated[list[Path], Argument(help="The --out of 'localize'.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="Parquet file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Check the table of a run, of all its shards, and write it as one file.

    Doubles, gaps, damage and shards of other settings are refused.
    """
    from dinolizer.bulk.table import merge as run

    typer.echo(_counted(out, run(folders, out, overwrite=overwrite)))


@app.command()
def fetch(
    name: Annotated[FetchName, Argument(help="What to get.")],
    from_file: Annotated[
        Path | None,
        Option(
            metavar="FILE", help="Of dinolizer, bfree and bsds: the published file, not downloaded."
        ),
    ] = None,
    from_folder: Annotated[
        Path | None,
        Option(metavar="DIR", help="Of bsds and inpaintings: files that are there already."),
    ] = None,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Of pictures: by default in data.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Get what cannot be shipped; an interrupted download goes on.

    'dinolizer' is the authors' released model (387 MB) and 'bfree' the B-Free backbone (320 MB),
    both converted and checked: B-Free's licence is nonprofit use only, and whatever is trained on
    it inherits that. 'cocoglide' are the 1,024 test images of CocoGlide with their manifest (123
    MB, for nonprofit use), 'photos' are 100 photographs for the laptop profile (DIV2K, 450 MB, for
    academic research), 'bsds' the 200 test photographs of BSDS500 (71 MB, for research and
    education), 'inpaintings' 69 real outputs of published models, each under its own licence
    (31 MB). DINOv2 and DINOv3 need no fetching: they come from their hub at first use.
    """
    if name in ("dinolizer", "bfree"):
        from dinolizer.model import bfree, release
        from dinolizer.model.specs import BACKBONES

        if name == "dinolizer" and from_file and not release.is_published(from_file):
            line = f"{from_file} is not the published file, of the SHA-256 {release.SHA256}"
            typer.echo(_line(f"{line}; it is converted as it is."), err=True)
        run = release.fetch if name == "dinolizer" else bfree.fetch
        typer.echo(f"{run(from_file)}  Licence: {BACKBONES[name].licence}")
    elif name == "cocoglide":
        from dinolizer.data.datasets import fetch_cocoglide

        out = out or Path("data")
        typer.echo(f"{fetch_cocoglide(out, overwrite=overwrite)}")
        typer.echo(f"{out / 'cocoglide.csv'}  CocoGlide (GRIP-UNINA), for nonprofit use only")
    elif name == "inpaintings":
        from dinolizer.data.inpaintings import fetch_inpaintings

        out = out or Path("data")
        report, missing = fetch_inpaintings(out, from_folder, overwrite=overwrite)
        typer.echo(f"{report}")
        if missing:
            line = f"not there as listed: {', '.join(missing)}; put them into a folder by hand"
            typer.echo(_line(f"{line}, and name it by --from-folder."), err=True)
        typer.echo(f"{out / 'inpaintings.csv'}  licences: its column of that name")
    elif name == "bsds":
        from dinolizer.pocket.photos import fetch_bsds

        out = out or Path("data/bsds")
        fetch_bsds(out, from_file or from_folder, overwrite=overwrite)
        typer.echo(f"{out}  BSDS500 (UC Berkeley), for research and education")
    else:
        from dinolizer.pocket.photos import DIV2K_NAMES, fetch_photos

        out = out or Path("data/photos")
        check_outputs([out / photo for photo in DIV2K_NAMES], overwrite=overwrite)
        fetch_photos(out)
        typer.echo(f"{out}  DIV2K, for academic research")


@app.command()
def train(
    manifests: Annotated[list[Path], Argument(help="CSV manifests, taken together.")],
    out: Annotated[Path, Option(metavar="FILE", help="The head, ending in .safetensors.")],
    model: Model = "pocket",
    weights: File = None,
    variant: Annotated[
        VariantName, Option(help="'v1': frozen, linear head; 'v2': LoRA, three classes.")
    ] = "v1",
    policy: Annotated[Policy | None, Option(help="Of labels; by default the variant's.")] = None,
    epochs: Annotated[int, Option(min=1, help="Passes over the images.")] = 20,
    batch: Annotated[int, Option(min=1, help="Crops per step, of all processes together.")] = 32,
    lr: Annotated[float | None, Option(min=0, help="Rate; by default the variant's.")] = None,
    patience: Annotated[int, Option(min=1, help="Epochs without a better validation Dice.")] = 5,
    crops: Annotated[
        Literal["fixed", "fresh"] | None, Option(help="In every epoch; by default the variant's.")
    ] = None,
    cache_gb: Annotated[float, Option(min=0, help="That tokens of fixed crops may take.")] = 8,
    device: Device = None,
    precision: Precise = "float32",
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of everything random.")] = 0,
    workers: Annotated[int, Option(min=0, help="Processes that prepare crops ahead.")] = 4,
    overwrite: Overwrite = False,
) -> None:
    """Train a head on images listed in manifests; an interrupted run goes on.

    On several GPUs: torchrun --nproc-per-node 4 -m dinolizer train ...
    """
    check_outputs([out], ".safetensors", inputs=[*manifests, weights], overwrite=overwrite)
    import pandas as pd

    from dinolizer.data.manifest import read_manifest
    from dinolizer.model.backbones import load_backbone
    from dinolizer.training.recipes import train as run

    run(
        pd.concat([read_manifest(path) for path in dict.fromkeys(manifests)], ignore_index=True),
        load_backbone(model, weights, device="cpu"),
        out,
        variant,
        policy=policy,
        epochs=epochs,
        batch=batch,
        lr=lr,
        patience=patience,
        crops=crops,
        cache_gb=cache_gb,
        device=device,
        overwrite=overwrite,
        precision=precision,
        seed=seed,
        workers=workers,
    )


@app.command()
def manifest(
    dataset: Annotated[DatasetName, Argument(help="Which; see data/README.md.")],
    root: Annotated[Path, Argument(help="Its folder, or its list's file.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="CSV file to write.")],
    incomplete: Annotated[
        bool, Option("--incomplete", help="Leave out what lacks its mask, and count it.")
    ] = False,
    choice: Annotated[
        list[str] | None, Option(metavar="NAME=VALUE", help="The dataset's own, such as split.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the manifest of a dataset on disk; say what was found and left out."""
    check_outputs([out], ".csv", inputs=[root], overwrite=overwrite)
    choices: dict[str, object] = {}
    for text in choice or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"The choice is {text!r}, but it must be NAME=VALUE.")
        if name in choices:
            raise InputError(f"The choice {name!r} was given twice; give it once.")
        choices[name] = value
    from dinolizer.data.datasets import make_manifest

    typer.echo(str(make_manifest(dataset, root, out, choices, incomplete=incomplete)))


@app.command()
def check(path: Annotated[Path, Argument(metavar="MANIFEST", help="CSV file.")]) -> None:
    """Check a manifest and all files that it names."""
    from dinolizer.data.checks import check_files
    from dinolizer.data.manifest import read_manifest

    frame = read_manifest(path)
    notes = check_files(frame)
    typer.echo(f"{path}: {len(frame)} images and their files are as the manifest says")
    for note in notes:
        typer.echo(f"  {note}")


def _profile_file(profile: str) -> Path:
    from dinolizer.study.parameters import find_profile

    return Path(profile) if profile.endswith((".yaml", ".yml")) else find_profile(profile)


@app.command()
def verify(
    folder: Annotated[Path, Argument(help="A profile's results.")] = Path("results/pocket"),
    quick: Annotated[bool, Option("--quick", help="Make nothing again.")] = False,
    cores: Annotated[int, Option(min=1, help="To make the results again on.")] = 2,
) -> None:
    """Say whether committed results are those that were made.

    Every file is compared with the list of hashes that was made with it, every verdict with the
    number that it follows from, and the summary with the tables. Without --quick all is made again,
    in a scratch folder, and every table is compared with the committed one, to two decimals.
    """
    from dinolizer.study.verify import check, count_tables, reproduce

    wrong = check(folder)
    number = count_tables(folder)
    if not quick:
        other = reproduce(folder.resolve(), cores)
        wrong += other
        typer.echo(f"reproduced: {number - len(other)} of {number} tables")
    for line in wrong:
        typer.echo(_line(line), err=True)
    if wrong:
        raise typer.Exit(1)
    typer.echo(f"{folder}: every file is the one that was made, and the summary follows from them")


@study.command()
def pretrain(
    photos: Annotated[Path, Argument(help="Folder of photographs.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for weights and checkpoints.")],
    flux: Annotated[
        Path | None, Option(metavar="DIR", help="Of the tiny auto-encoder of FLUX.2, if used.")
    ] = None,
    device: Device = None,
) -> None:
    """Make the pocket weights from a folder of photographs; an interrupted run goes on."""
    from dinolizer.pocket.build import pretrain as run

    run(photos, out, device, flux=flux)


@study.command()
def prepare(profile: Profile) -> None:
    """Make what the notebooks of a profile share: images, tokens, heads, thresholds."""
    from dinolizer.study.jobs import prepare as run

    run(_profile_file(profile))


@study.command()
def evaluate(
    profile: Profile, shard: Annotated[str, Option(metavar="I/N", help="Only part I of N.")] = "1/1"
) -> None:
    """Compute the rows of a profile's benchmark and robustness study ahead of the notebooks.

    They go into the cache. What is there is not computed again; run again, an interrupted run goes
    on, and any number of shards may run at the same time.
    """
    from dinolizer.bulk.listing import Shard
    from dinolizer.study.jobs import compute_rows

    part = Shard.parse(shard)
    compute_rows(_profile_file(profile), part.number, part.count)


@study.command()
def summarise(profile: Profile) -> None:
    """Write the summary page of a profile's results, and the list of all files' hashes."""
    from dinolizer.study.parameters import read_profile
    from dinolizer.study.summary import summarise_results as run
    from dinolizer.study.verify import sign

    file = _profile_file(profile)
    pages = run(str(read_profile(file).get("profile", file.stem)))
    for path in (*pages, sign(pages[0].parent)):
        typer.echo(str(path))


@study.command()
def check_parameters(
    notebook: Annotated[Path, Argument(help="An .ipynb file.")],
    profile: Profile,
    out: Annotated[Path | None, Option(help="Write the notebook's own there, as YAML.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Check the names and values that a profile sets, against the notebooks' own."""
    import yaml

    from dinolizer.paths import atomic
    from dinolizer.study.parameters import parameters_for

    file = _profile_file(profile)
    if out is not None:
        check_outputs([out], ".yaml", inputs=[notebook, file], overwrite=overwrite)
    parameters = parameters_for(notebook, file)
    if out is not None:
        with atomic(out) as draft:
            draft.write_text(yaml.safe_dump(parameters), encoding="utf-8")
