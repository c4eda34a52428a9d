# Published against reproduced: the study's page, tables, figures and the numbers behind them.


rule report:
    input:
        scored,
        tracking="reports/{study}/tracking.json",
    output:
        page=report(
            "reports/{study}/index.html", caption="../report/page.rst", category="{study}", labels={"what": "page"}
        ),
        text=report(
            "reports/{study}/table.md", caption="../report/table.rst", category="{study}", labels={"what": "table"}
        ),
        table=report(
            "reports/{study}/table.csv",
            caption="../report/table.rst",
            category="{study}",
            labels={"what": "table, CSV"},
        ),
        metrics="reports/{study}/metrics.json",
        figures=report(
            directory("reports/{study}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="{study}",
            labels={"what": "{figure}"},
        ),
    log:
        "data/logs/report/{study}.txt",
    benchmark:
        "data/logs/report/{study}.tsv"
    conda:
        "../envs/segkd.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        **of_study("report"),
        **of_missing(),
    shell:
        "segkd report {wildcards.study} > {log} 2>&1"
