# segkd: data, teachers, students, evaluation and report, one rule per step. What is built: params.yaml, workflow/studies.
from snakemake.utils import min_version

min_version("9.18")  # older ones run again whatever is newer, although its content is the same


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/teacher.smk"
include: "workflow/rules/autoencoder.smk"
include: "workflow/rules/student.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/track.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/incomplete.smk"
include: "workflow/rules/landing.smk"


localrules:
    all,
    check,


rule all:
    default_target: True
    input:
        rules.check.output,
        rules.landing.output,
        [page(study) for study in CHOICE.names],


for study in study_names():

    rule:
        name:
            study
        input:
            rules.check.output,
            rules.landing.output,
            page(study),
