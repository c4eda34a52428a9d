# Every image and label checked, then memory-mapped arrays. Only the receipt, their hashes, travels by DVC.


rule prepare:
    input:
        raw="data/raw/{dataset}/manifest.json",
    output:
        manifest="data/prepared/{dataset}/manifest.json",
        receipt="data/receipts/{dataset}.json",
    log:
        "data/logs/prepare/{dataset}.txt",
    benchmark:
        "data/logs/prepare/{dataset}.tsv"
    conda:
        "../envs/segkd.yaml"
    threads: 16
    resources:
        gpu=0,
    params:
        **of_data("prepare"),
    shell:
        "segkd prepare {wildcards.dataset} > {log} 2>&1"
