# One rule a notebook: papermill runs it with a profile, and its tables and figures are the outputs.
#
#   snakemake --cores 2                             the pocket profile
#   snakemake --cores 2 --configfile notebooks/profiles/laptop.yaml     another
#   snakemake --cores 64 --config profile=paper shards=64    more jobs for 03 and 04 (by default 2)
#   snakemake --cores 2 bulk --config pictures=FOLDER     no notebook, but many images: see bulk.smk

import os
from pathlib import Path

from dinolizer.paths import cache_dir, results_dir
from dinolizer.study.parameters import find_profile, read_profile

# What each notebook makes. A table is a CSV and a LaTeX file, a figure a PNG file, each with a JSON
# of provenance. `prepared`: it reads images, tokens or heads from the cache; `evaluated`: also the
# rows of its tables, which jobs of their own compute; `alone`: it takes times, and so has all cores.
NOTEBOOKS = {
    "00-quickstart": {
        "figures": ["00-by-hand", "00-examples", "00-method", "00-quickstart", "00-windows"]
    },
    "01-data": {
        "tables": ["01-data"],
        "figures": [
            "01-gallery",
            "01-mask-sizes",
            "01-photograph",
            "01-residuals",
            "01-spectra",
        ],
        "prepared": True,
    },
    "02-train-head": {
        "tables": ["02-train-head"],
        "figures": ["02-losses", "02-train-head", "02-weights"],
        "heads": True,
        "prepared": True,
    },
    "03-benchmark": {
        "tables": [
            "03-authentic",
            "03-benchmark",
            "03-conditions",
            "03-detection",
            "03-differences",
            "03-matched",
            "03-published",
            "03-verdict",
        ],
        "figures": [
            "03-benchmark",
            "03-detection",
            "03-differences",
            "03-examples",
            "03-roc",
        ],
        "prepared": True,
        "evaluated": True,
    },
    "04-robustness": {
        "tables": ["04-robustness", "04-verdict"],
        "figures": ["04-robustness", "04-false-positives"],
        "prepared": True,
        "evaluated": True,
    },
    "05-dinov2-vs-dinov3": {
        "tables": ["05-linear-probe", "05-training", "05-verdict"],
        "figures": ["05-linear-probe", "05-training"],
        "prepared": True,
    },
    "06-mask-size": {
        "tables": ["06-shrinking", "06-size-at-half", "06-training", "06-verdict"],
        "figures": ["06-examples", "06-shrinking", "06-training"],
        "prepared": True,
    },
    "07-labels": {
        "tables": [
            "07-background",
            "07-differences",
            "07-labels",
            "07-predicted",
            "07-reduction",
            "07-verdict",
        ],
        "figures": ["07-examples", "07-labels", "07-predicted"],
        "prepared": True,
    },
    "08-backbone": {
        "tables": ["08-layers", "08-losses", "08-pooled", "08-verdict"],
        "figures": ["08-layers", "08-losses"],
        "prepared": True,
    },
    "09-cost": {
        "tables": ["09-strides", "09-seconds"],
        "figures": ["09-strides", "09-seconds"],
        "prepared": True,
        "alone": True,
    },
    "10-published-model": {
        "tables": ["10-aggregates", "10-detection", "10-size-at-half", "10-sizes", "10-verdict"],
        "figures": ["10-roc", "10-sizes"],
    },
    # Without pictures it shows the committed tables of the profile `real`, and judges by them.
    "11-real-inpaintings": {"tables": ["11-verdict"]},
    "12-mechanisms": {
        "tables": ["12-edges", "12-strides", "12-verdict"],
        "figures": ["12-edges", "12-seams", "12-strides"],
        "prepared": True,
    },
    "A1-pocket": {"figures": ["A1-generators", "A1-pretraining"], "only": "pocket"},
}

# What a notebook depends on: the package's modules, weights, cards and tables, and the numbers of
# others in data/published.
SUFFIXES = (".py", ".safetensors", ".json", ".csv")

# Without it notebooks write to data/out, as when they are run by hand.
os.environ.setdefault("DINOLIZER_RESULTS", str(Path("results").resolve()))
PROFILE = config.get("profile", "pocket")
PROFILE_FILE = os.path.relpath(find_profile(PROFILE))
PARAMETERS = read_profile(Path(PROFILE_FILE))
CHOSEN = {name: made for name, made in NOTEBOOKS.items() if made.get("only", PROFILE) == PROFILE}
if len(PARAMETERS.get("test", ())) > 1:  # of one, the benchmark has a line for each generator
    CHOSEN["03-benchmark"]["tables"] += ["03-generators"]
if not PARAMETERS.get("test"):  # photographs are forged
    CHOSEN["12-mechanisms"]["tables"] += ["12-cues"]
    CHOSEN["12-mechanisms"]["figures"] += ["12-cues", "12-cues-maps"]
if PROFILE == "published":  # nothing is trained or forged for it
    CHOSEN = {"10-published-model": NOTEBOOKS["10-published-model"]}
    CHOSEN["10-published-model"]["tables"] += ["10-comparison"]
    CHOSEN["10-published-model"]["figures"] += ["10-comparison"]
if PROFILE == "real":
    tables = ["areas", "generators", "means", "outside", "pictures", "verdict", "wanted"]
    if any(Path(folder).is_dir() for folder in PARAMETERS["unedited"]):  # what is not is left out
        tables.append("unedited")
    made = {"tables": [f"11-{table}" for table in tables], "figures": ["11-generators"]}
    CHOSEN = {"11-real-inpaintings": made}
RESULTS = os.path.relpath(results_dir(PROFILE))
LOG = f"{RESULTS}/log"  # of what differs from run to run; git ignores it
CACHE = os.path.relpath(cache_dir() / PROFILE)
PREPARED = f"{CACHE}/prepared.done"
JOBS = int(config.get("shards", 2))
EVALUATED = [f"{CACHE}/evaluated-{number}-of-{JOBS}.done" for number in range(1, JOBS + 1)]
# Made by 02-train-head; with `trained: true` the quickstart uses it and not the shipped one.
HEAD = f"{RESULTS}/heads/{PARAMETERS['backbone']}.safetensors"
SUMMARY = [f"{RESULTS}/{name}" for name in ("SUMMARY.md", "SHA256SUMS")]
SOURCES = sorted(
    str(path)
    for folder in ("dinolizer", "data/published")
    for path in Path(folder).rglob("*")
    if path.suffix in SUFFIXES
)


def outputs(made):
    """Paths of all files that a notebook leaves in the results, its own executed copy apart."""
    kinds = {"tables": ("csv", "tex", "json"), "figures": ("png", "json")}
    files = [
        f"{RESULTS}/{kind}/{name}.{suffix}"
        for kind, suffixes in kinds.items()
        for name in made.get(kind, [])
        for suffix in suffixes
    ]
    return files + ([HEAD] if made.get("heads") else [])


rule all:
    input:
        # The results are committed; the markers are not, so that a fresh clone makes all anew.
        expand(f"{LOG}/{{name}}.done", name=CHOSEN),
        [outputs(made) for made in CHOSEN.values()],
        expand(f"{RESULTS}/notebooks/{{name}}.ipynb", name=CHOSEN),
        SUMMARY,


rule prepare:
    input:
        profile=PROFILE_FILE,
        package=SOURCES,
    output:
        touch(PREPARED),
    threads: 2
    shell:
        "OMP_NUM_THREADS={threads} dinolizer study prepare {input.profile:q}"


rule evaluate:
    input:
        PREPARED,
        profile=PROFILE_FILE,
        package=SOURCES,
    output:
        touch(f"{CACHE}/evaluated-{{number}}-of-{JOBS}.done"),
    # What a job that died has computed is in the cache, and the notebooks compute what is not.
    retries: 3
    priority: 1
    threads: int(config.get("threads", 1))
    resources:
        gpu=int(config.get("gpu", 0)),
        mem_mb=8000,
        runtime=720,
    shell:
        """
        OMP_NUM_THREADS={threads} dinolizer study evaluate {input.profile:q} \
            --shard {wildcards.number}/{JOBS}
        """


for name, made in CHOSEN.items():

    rule:
        name:
            name
        input:
            notebook=f"notebooks/{name}.ipynb",
            profile=PROFILE_FILE,
            package=SOURCES,
            prepared=[PREPARED] if made.get("prepared") else [],
            evaluated=EVALUATED if made.get("evaluated") else [],
            head=[HEAD] if name == "00-quickstart" and PARAMETERS.get("trained") else [],
        output:
            outputs(made),
            notebook=f"{RESULTS}/notebooks/{name}.ipynb",
            marker=touch(f"{LOG}/{name}.done"),
        params:
            # Snakemake removes the outputs of a failed rule; the draft is none, and so is kept.
            draft=f"{CACHE}/{name}.ipynb",
            parameters=f"{CACHE}/{name}.yaml",
            said=f"{CACHE}/{name}.log",  # kernels warn of much that is none of a reader's business
        threads: (workflow.cores or 1) if made.get("alone") else 1
        # Two kernels that start at the same time may ask for the same port.
        retries: 1
        shell:
            """
            export OMP_NUM_THREADS={threads}
            mkdir -p "$(dirname {params.parameters:q})"
            dinolizer study check-parameters {input.notebook} {input.profile:q} > {params.parameters:q}
            papermill {input.notebook} {params.draft:q} --parameters_file {params.parameters:q} \
                --kernel python3 --no-progress-bar 2> {params.said:q} ||
                {{ cat {params.said:q} >&2; echo {input.notebook} failed, kept as far as it ran: {params.draft:q} >&2; exit 1; }}
            mv {params.draft:q} {output.notebook:q}
            """


rule summary:
    input:
        expand(f"{LOG}/{{name}}.done", name=CHOSEN),
        package=SOURCES,
    output:
        SUMMARY,
    shell:
        "dinolizer study summarise {PROFILE:q} > /dev/null"


include: "bulk.smk"
