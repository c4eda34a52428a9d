# A network that teaches: trained by cross-entropy alone.


rule teacher:
    input:
        data=receipt,
    output:
        weights="data/models/{run}/weights.safetensors",
        record="data/models/{run}/run.json",
    log:
        "data/models/{run}/log.txt",
    benchmark:
        "data/models/{run}/benchmark.tsv"
    wildcard_constraints:
        run=TEACHER,
    priority: 20
    conda:
        "../envs/segkd.yaml"
    threads: threads_of_all
    resources:
        gpu=gpus,
    params:
        **of_training("teacher"),
        hash=config_hash,
    shell:
        "segkd teacher {wildcards.run} --config-hash {params.hash} > {log} 2>&1"
