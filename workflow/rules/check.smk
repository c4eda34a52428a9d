# Every method's hyper-parameters, while the data are made: a slip must not wait for a teacher of many hours.
# No step takes this as input, not even as ancient(): a job that runs hides what else changed behind ancient() inputs.


rule check:
    output:
        "data/receipts/methods.txt",
    log:
        "data/logs/check.txt",
    benchmark:
        "data/logs/check.tsv"
    priority: 100
    conda:
        "../envs/segkd.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        **CHECK,
    shell:
        "segkd check > {output} 2> {log}"
