# A student, alone or with a teacher: one rule for every method.


rule student:
    input:
        data=receipt,
        teacher=teacher,
        pretraining=pretraining,
    output:
        weights="data/models/{run}/weights.safetensors",
        record="data/models/{run}/run.json",
    log:
        "data/models/{run}/log.txt",
    benchmark:
        "data/models/{run}/benchmark.tsv"
    wildcard_constraints:
        run=STUDENT,
    conda:
        "../envs/segkd.yaml"
    threads: threads_of_all
    resources:
        gpu=gpus,
    params:
        **of_training("student"),
        hash=config_hash,
    shell:
        "segkd student {wildcards.run} --config-hash {params.hash} > {log} 2>&1"
