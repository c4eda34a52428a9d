# Every run of a study in MLflow, from its journal. The mirror is not a result: MLflow may be gone.
from segkd.errors import without_credentials  # Snakemake records params, and DVC passes its records on


rule track:
    input:
        scored,
    output:
        "reports/{study}/tracking.json",
    log:
        "data/logs/track/{study}.txt",
    benchmark:
        "data/logs/track/{study}.tsv"
    conda:
        "../envs/segkd.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        **of_study("track"),
        store=f"store: {without_credentials(PARAMS.tracking.uri)}",
    shell:
        "segkd track replay {wildcards.study} > {log} 2>&1"
