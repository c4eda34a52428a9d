# A data set as published, every file verified. Never pushed by DVC: many licences forbid it.


rule download:
    output:
        "data/raw/{dataset}/manifest.json",
    log:
        "data/logs/download/{dataset}.txt",
    benchmark:
        "data/logs/download/{dataset}.tsv"
    conda:
        "../envs/segkd.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        **of_data("download"),
    shell:
        "segkd download {wildcards.dataset} > {log} 2>&1"
