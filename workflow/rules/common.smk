# Helpers of the rules: which files a step reads, and its slice of params.yaml. What decides is in segkd.plan.
import re
import sys

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from segkd import plan
from segkd.availability.decision import Ledger
from segkd.config.load import load_params, load_study
from segkd.config.runs import RELEASED, REPORTS, Run, pick, resolve, study_runs, teacher_of
from segkd.errors import SegkdError
from segkd.plan import study_names

GPU = int("gpu" in list(workflow.global_resources))


def planned():
    """params.yaml, the studies to build, and the runs that teach; a fault in them stops with its message alone."""
    if config:
        raise WorkflowError(f"--config {' '.join(config)} would change nothing: params.yaml is read as it is; edit it.")
    try:
        params = load_params()
        choice = plan.choose(params, gpu=bool(GPU), asked=sys.argv[1:])
        for name in choice.names:
            runs_of(name, params)
        return params, choice, plan.teacher_names(params), plan.check_slice(params)
    except SegkdError as error:
        raise WorkflowError(f"{error}") from None


def runs_of(study, params=None):
    """All runs of a study, teachers first."""
    return study_runs(params or PARAMS, load_study(study))


def page(study):
    """What a study ends in."""
    return f"{REPORTS}/{study}/index.html"


def metrics(study):
    """The numbers behind a study's page."""
    return f"{REPORTS}/{study}/metrics.json"


def dataset(name):
    """A data set's entry in params.yaml."""
    return pick(PARAMS.datasets, name, "dataset")


def receipt(wildcards):
    """What stands for the prepared data: their hashes. The data themselves may be absent, and are made again where needed."""
    return f"data/receipts/{resolve(PARAMS, Run.parse(wildcards.run)).recipe.dataset}.json"


def made(run):
    """The file that says that a run is finished, as a list; empty for None."""
    return [f"{run.folder}/run.json"] if run else []


def teacher(wildcards):
    """What teaches a run, finished; nothing for a student alone."""
    return made(teacher_of(PARAMS, Run.parse(wildcards.run)))


def pretraining(wildcards):
    """What a run's method has trained on the teacher beforehand, finished; nothing for most."""
    return made(plan.pretraining_of(PARAMS, Run.parse(wildcards.run)))


def scored(wildcards):
    """All finished and scored runs of a study, without those that cannot be made here."""
    left_out = LEDGER.left_out(wildcards.study)
    runs = [run for run in runs_of(wildcards.study) if run.name not in left_out]
    return [f"{run.folder}/{name}" for run in runs for name in ("run.json", "evaluation.json")]


def recipe(wildcards):
    """A run's recipe."""
    return resolve(PARAMS, Run.parse(wildcards.run)).recipe


def threads(wildcards):
    """A run's threads; part of its recipe, since they order floating-point sums."""
    return recipe(wildcards).threads


def threads_of_all(wildcards):
    """The threads of all processes that train a run together."""
    return threads(wildcards) * recipe(wildcards).gpus


def gpus(wildcards):
    """A run's GPUs, one for each of its processes; none where Snakemake was given none."""
    return GPU * recipe(wildcards).gpus


def config_hash(wildcards, input):
    """Hash of a run's whole configuration, with which its verb refuses a params.yaml that changed since planning.

    Snakemake does not record values of functions that take `input`: here the slices decide, this only guards.
    """
    return resolve(PARAMS, Run.parse(wildcards.run)).sha256()


def of_data(step):
    """Slice of a data step, a function of its wildcards per entry."""
    return per_entry(("data", "code"), lambda w: plan.data_slice(dataset(w.dataset), step))


def of_training(step):
    """Slice of a training step."""
    keys = ("recipe", "network", "method", "teacher", "code")
    return per_entry(keys, lambda w: plan.training_slice(PARAMS, Run.parse(w.run), step))


def of_evaluation():
    """Slice of the evaluation."""
    return per_entry(("evaluation", "code"), lambda w: plan.evaluation_slice(PARAMS, Run.parse(w.run)))


def of_study(step):
    """Slice of a study's step."""
    return per_entry(("study", "code"), lambda w: plan.study_slice(w.study, load_study(w.study), step))


def of_missing():
    """Slice of what a study's page says about runs that are left out."""
    return per_entry(("missing",), lambda w: plan.reasons_slice(LEDGER.left_out(w.study)))


def missing(wildcards):
    """What the page over all studies says about runs that are left out."""
    reasons = {run: why for study in CHOICE.names for run, why in LEDGER.left_out(study).items()}
    return plan.reasons_slice(reasons)["missing"]


def occasion():
    """What Snakemake was called for: to do things, to say what it would do, or another (a job, a look at results)."""
    if not workflow.is_main_process or workflow.executor_plugin is None or workflow.touch:
        return "other"
    return "dry run" if workflow.dryrun else "run"


def per_entry(keys, slices):
    """One parameter per entry, so that Snakemake names the entry that changed."""
    return {key: lambda wildcards, key=key: slices(wildcards)[key] for key in keys}


PARAMS, CHOICE, TEACHERS, CHECK = planned()
LEDGER = Ledger(PARAMS, CHOICE.names, occasion, logger.warning)
if workflow.is_main_process:
    logger.info(f"segkd: {CHOICE}")


onstart:
    LEDGER.record()


wildcard_constraints:
    dataset="[^/]+",
    study="[^/]+",


TEACHER = "|".join(map(re.escape, sorted(TEACHERS))) or "(?!)"
STUDENT = rf"(?!(?:{TEACHER})/)[^/]+/[^/]+/(?!{RELEASED}/)[^/]+/seed\d+"  # released weights are imported, never made
