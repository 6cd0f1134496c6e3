# Many images over many workers: shards of a list, each a job, and one table of them all.
#
#   snakemake --cores 2 bulk --config pictures=photos shards=8 out=found
#   snakemake --profile profiles/slurm bulk --config pictures=photos.csv shards=64 out=found \
#       localize="--model bfree --head head.safetensors --masks"
#
# A job that dies is started again and goes on where it stopped: see docs/scale.md.


def text(key, default=None):
    """A value of the configuration, which Snakemake has read as YAML: 2024_10 is a number there."""
    value = config.get(key, default)
    if not isinstance(value, str):
        raise WorkflowError(
            "Say which images: --config pictures=FOLDER_OR_MANIFEST."
            if value is None
            else f"{key} was read as {value!r} and not as a name; write {key}=./NAME."
        )
    return value


SHARDS = int(config.get("shards", 1))
OUT = text("out", "localized")


rule bulk:
    input:
        expand(f"{OUT}/localized.parquet/{{number}}-of-{SHARDS}.parquet", number=range(1, SHARDS + 1)),
    output:
        f"{OUT}/merged.parquet",
    localrule: True
    shell:
        "dinolizer merge {OUT:q} --out {output:q}"


rule bulk_shard:
    input:
        # Asked for only where this rule is. A folder's date says nothing of its images, and
        # `localize` refuses a list that has changed.
        lambda wildcards: ancient(text("pictures")),
    output:
        # Not removed before another try, as rows of an earlier one may be in it.
        update(f"{OUT}/localized.parquet/{{number}}-of-{SHARDS}.parquet"),
    params:
        options=config.get("localize", ""),
    retries: 3
    threads: int(config.get("threads", 1))
    resources:
        gpu=int(config.get("gpu", 0)),
        mem_mb=8000,
        runtime=720,
    shell:
        """
        OMP_NUM_THREADS={threads} dinolizer localize {input:q} --out {OUT:q} \
            --shard {wildcards.number}/{SHARDS} {params.options}
        """
