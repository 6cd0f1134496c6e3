# Many images over many workers: shards of a list, each a job, and one table of them all.
#
#   snakemake --cores 2 bulk --config images=photos shards=8 out=found
#   snakemake --profile profiles/slurm bulk --config images=photos.csv shards=64 out=found \
#       localize="--model bfree --head head.safetensors --masks"
#
# A job that dies is started again and goes on where it stopped: see docs/scale.md.

SHARDS = int(config.get("shards", 1))
OUT = config.get("out", "localized")


def images(wildcards):
    """The folder or manifest; asked for only where these rules are."""
    if "images" not in config:
        raise WorkflowError("Say which images: --config images=FOLDER_OR_MANIFEST.")
    # A folder's date says nothing of its images, and `localize` refuses a list that has changed.
    return ancient(config["images"])


rule bulk:
    input:
        expand(f"{OUT}/localized-{{number}}-of-{SHARDS}.parquet", number=range(1, SHARDS + 1)),
    output:
        f"{OUT}/localized.parquet",
    localrule: True
    shell:
        "dinolizer merge {OUT:q} --out {output:q}"


rule bulk_shard:
    input:
        images,
    output:
        # Not removed before another try, as rows of an earlier one may be in it.
        update(f"{OUT}/localized-{{number}}-of-{SHARDS}.parquet"),
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
