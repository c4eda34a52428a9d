# What a method trains on the frozen teacher before any student; most methods have none.


rule autoencoder:
    input:
        data=receipt,
        teacher=teacher,
    output:
        weights="data/models/{run}/weights.safetensors",
        record="data/models/{run}/run.json",
    log:
        "data/models/{run}/log.txt",
    benchmark:
        "data/models/{run}/benchmark.tsv"
    wildcard_constraints:
        run=r"[^/]+/[^/]+/[^/@]+@[^/]+/autoencoder",
    priority: 20
    conda:
        "../envs/segkd.yaml"
    threads: threads_of_all
    resources:
        gpu=gpus,
    params:
        **of_training("autoencoder"),
        hash=config_hash,
    shell:
        "segkd autoencoder {wildcards.run} --config-hash {params.hash} > {log} 2>&1"
