# The score over all papers, built or not: one page that leads to all others.


rule landing:
    input:
        [metrics(study) for study in CHOICE.names],
    output:
        report("reports/index.html", caption="../report/landing.rst", category="all studies", labels={"what": "page"}),
    log:
        "data/logs/landing.txt",
    benchmark:
        "data/logs/landing.tsv"
    conda:
        "../envs/segkd.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        **plan.landing_slice(PARAMS),
        missing=missing,
    shell:
        "segkd landing > {log} 2>&1"
