# One confusion matrix over the whole split, and what follows from it; sums per image for the statistics.


rule evaluate:
    input:
        data=receipt,
        record="data/models/{run}/run.json",
    output:
        scores="data/models/{run}/evaluation.json",
        images="data/models/{run}/per_image.npz",
        samples="data/models/{run}/samples.npz",
    log:
        "data/models/{run}/evaluation.txt",
    benchmark:
        "data/models/{run}/evaluation.tsv"
    wildcard_constraints:
        run=r"[^/]+/[^/]+/[^/]+/seed\d+",
    conda:
        "../envs/segkd.yaml"
    threads: threads
    resources:
        gpu=GPU,
    params:
        **of_evaluation(),
        hash=config_hash,
    shell:
        "segkd evaluate {wildcards.run} --config-hash {params.hash} > {log} 2>&1"
