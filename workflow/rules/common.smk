"""The config, the run that it names, and the functions that the rules share."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.resources import Resource

from analysis import catalog
from analysis.cli import BadInput
from analysis.config import STAGES, Run, check, devices_of, load, sealed
from analysis.environment import usable_cores
from analysis.modules import closure, locate
from rag import config as serving_config
from rag import cost

SHIPPED = "h200"
EMBEDDED = "config/smoke.yaml"


wildcard_constraints:
    operator="[^./]+",
    backend="[^./]+",
    experiment="[^./]+",
    architecture="sm_[0-9]+",


MEASURING = ("sweep", "bench")
WHOLE = "1"  # a bench's only shard
ENDINGS = {"figure": "pdf", "table": "tex"}
SHOWN = ("figure", "figures", "against")  # keys that only say how records are drawn
HAS_TEX = bool(shutil.which("latexmk") and shutil.which("pdflatex"))


def on_slurm():
    """Whether the jobs run on Slurm's nodes, asked where they are submitted (--jobs counts them) or by such a job itself.

    Snakemake knows its executor only after it has read the rules.
    """
    from cluster import site

    if not workflow.is_main_process:
        return "SLURM_JOB_ID" in os.environ
    return workflow.resource_settings.nodes is not None and site.slurm_answers()


ON_SLURM = on_slurm()

# Plain `snakemake` uses this machine's cores. Not a default profile, whose limit would hold for jobs on Slurm's nodes too.
if workflow.resource_settings.cores is None and not ON_SLURM:
    workflow.resource_settings.cores = usable_cores()
    workflow.global_resources["_cores"] = Resource("_cores", usable_cores())

# Rules call the Python that runs Snakemake, whether or not its environment is activated.
shell.prefix(f"set -euo pipefail; export PATH={Path(sys.executable).parent}:$PATH PYTHONUNBUFFERED=1; ")


def resolve_run(given, explicit):
    """The run that a command names: by --config run=NAME, else by its config's own name.

    A run that was made before keeps its config, and one that starts from another takes that one's, unless a config file is
    named on the command line or by the profile.
    """
    given = dict(given)
    name, origin = given.pop("run", None), given.get("from")
    given = {key: value for key, value in given.items() if key not in ("from", "again")}
    kept = Path("results", str(name), "config.yaml")
    if not explicit:
        start = Path("results", str(origin), "config.yaml")
        source = next((path for path in (kept, start) if path.is_file()), Path(EMBEDDED))
        given = load(source) | given
    else:
        source = Path(explicit[0])
    check(given, str(source))
    folder = Path("results", str(name or given["name"]))
    if sealed(folder):
        given = load(folder / "config.yaml")
        return Run(folder.name, folder, given, devices_of(folder), True)
    from cluster import site
    from kernels import plan

    plan.check(given)
    serving_config.check(given, str(source))
    if workflow.is_main_process:
        given["devices"] = site.planned(given["devices"])
    else:  # a job plans the devices that its driver planned, whatever "auto" would be on its node
        given["devices"] = load(folder / "config.yaml")["devices"]
    return Run(folder.name, folder, given, tuple(given["devices"]), False)


def shipped_run():
    """The run that `paper`, `figures` and `tables` are made from: the one named, else the shipped one, else this one."""
    folder = Path("results", SHIPPED)
    if "run" in config or not sealed(folder):
        return RUN
    return Run(SHIPPED, folder, load(folder / "config.yaml"), devices_of(folder), True)


def keep_config(run):
    """Write the run's copy of its config, which its jobs read, where it differs."""
    import yaml

    from analysis.cli import replacing

    path = run.folder / "config.yaml"
    text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    if not run.sealed and not (path.is_file() and path.read_text() == text):
        with replacing(path) as temporary:
            temporary.write_text(text)


def keep_plan():
    """Write the cuts into shards, which the jobs read, where they differ."""
    if not RUN.sealed:
        planner().write()


def code(module):
    """The project's files behind `python -m module`: a rule depends on the code it runs."""
    return [os.path.relpath(path) for path in closure(locate(module))]


def operator_code(name):
    """Every source file of an operator."""
    from kernels import registry

    folder = Path(registry.operators(RUN.config.get("operators", ()))[name])
    return sorted(os.path.relpath(path) for path in folder.glob("*.py"))


def named(stage, name):
    """The experiment of a stage, with its operator."""
    return planner().experiment(stage, name)


@functools.cache
def planner():
    """What the run's sweeps and benches will take: their shards, and what is left out."""
    from kernels.planning.planner import Planner

    return Planner(RUN)


def resource(device, name, default):
    """One of Snakemake's resources of a job on a planned device; where the device asks for none, what default-resources gives every job."""
    from cluster import site

    given = (workflow.resource_settings.default_resources or {}).get(name)
    given = getattr(given, "raw", given)
    return site.resources(device).get(name, default if given is None else given)


def minutes(device, wanted):
    """Run time of a job: `wanted` minutes, or its partition's limit where that is shorter."""
    from cluster import site

    return site.load().minutes(device, wanted)


def serving(name):
    """A RAG experiment's settings, with every default, arm and load."""
    return serving_config.checked(RUN.config["rag"][name], f"rag.{name}")


def gpus_of(name):
    """A GPU for each instance of an experiment's services, on a device that is asked for as a GPU."""
    its, number = resource(RUN.devices[0], "gpu", 0), cost.instances(serving(name))
    return number if its and number > 1 else its


def spec_of(stage, name, problems=None):
    """What an experiment's records depend on in the config, as text: a job is run again when it changes. Of a shard, with its problems."""
    its = {key: value for key, value in RUN.config[stage][name].items() if key not in SHOWN}
    return json.dumps(
        [
            its if problems is None else {**its, "problems": [problem.fields() for problem in problems]},
            RUN.config["seed"],
            RUN.config.get("samples"),
            stage == "sweep" and RUN.config.get("race"),
        ],
        sort_keys=True,
    )


def spec_of_operator(name, stages, keys):
    """What the experiments of an operator say under some keys, as text: all that compiling or validating it depends on."""
    every = [named(*each) for each in EXPERIMENTS if each[0] in stages]
    mine = [each for each in every if each.operator.name == name]
    return json.dumps(
        [[RUN.config[each.stage][each.name].get(key) for key in keys] for each in mine],
        sort_keys=True,
    )


def validated(experiment, device):
    """Validation records of the backends that an experiment measures on a device."""
    from kernels import plan

    operator = experiment.operator.name
    names = [name for name in plan.validated_on(experiment.operator, device) if name in experiment.backends]
    return [f"{RUN.folder}/validate/{operator}.{name}.{device}.parquet" for name in names]


def architectures_of(device):
    """The architectures whose kernels a job on a planned device may launch: its own, all where it is unknown, none on a CPU."""
    from cluster import site

    wanted = RUN.config["architectures"]
    if device == "cpu":
        return []
    own = "" if device == "gpu" else site.gpu(device).architecture
    return [own] if own in wanted else wanted


def compiled_stages(architecture):
    """The stages whose problems are compiled for an architecture: sweeps always, benches where a planned device has it."""
    return ["sweep", "bench"] if any(architecture in architectures_of(device) for device in RUN.devices) else ["sweep"]


def compiled(experiment, device):
    """Compile tables that a job on a device reads."""
    return [f"{RUN.folder}/compile/{experiment.operator.name}.{each}.parquet" for each in architectures_of(device)]


def caches(experiment, device):
    """Compile caches that a job on a device adopts."""
    return [f"{RUN.folder}/compile/{experiment.operator.name}.{each}.cache" for each in architectures_of(device)]


def tuned(experiment, device):
    """Tuned tables that a bench reads: of the sweeps of its operator."""
    return [f"{RUN.folder}/tune/{name}.{device}.json" for name in sweeps_of(experiment.operator) if measurable("sweep", name, device)]


def sweeps_of(operator):
    """The sweeps of an operator."""
    return [name for stage, name in EXPERIMENTS if stage == "sweep" and named(stage, name).operator.name == operator.name]


def measurable(stage, name, device):
    """Whether anything of an experiment can be measured on a planned device."""
    return bool(planner().feasible(stage, name, device).problems)


def shards(name, device):
    """The record files of a sweep's shards on a device."""
    return [f"{RUN.folder}/sweep/shards/{name}.{device}.{number}.parquet" for number in planner().cut("sweep", name, device)]


def measuring_threads():
    """Cores of a measuring job: eight of a node's, or all of this machine's, so that nothing else is measured beside it."""
    return 8 if ON_SLURM else workflow.cores


def run_of(wildcards):
    """The run, of the two that are in play, that a file belongs to."""
    return PAPER if wildcards.run == PAPER.name else RUN


def items(make):
    """Figures or tables of the run and of the paper's run, by run and stem."""
    runs = {each.name: each for each in (RUN, PAPER)}.values()
    found = ((run, there(run, item)) for run in runs for item in make(run))
    return {(run.name, item.stem): item for run, item in found if item}


def there(run, item):
    """The item as its run can make it: from the records that it has or can have; None where it can have none of them."""
    records = tuple(path for path in item.records if possible(run, path))
    return dataclasses.replace(item, records=records) if records else None


def possible(run, path):
    """Whether a sealed run has a record file; whether another has anything to measure for it."""
    if run.sealed:
        return (run.folder / path).is_file()
    stage, name, device = experiment_behind(path)
    return stage not in MEASURING or measurable(stage, name, device)


def experiment_behind(path):
    """Stage, experiment and device that a record file (<stage>/<experiment>.<device>.parquet) is of."""
    path = Path(path)
    name, _, device = path.stem.partition(".")
    return path.parent.name, name, device


def tables_of(run):
    """The tables of a run; the validation records of a sealed one are those that it has."""
    from kernels import plan, registry

    def validated(operator, device):
        if run.sealed:
            return [path.name.split(".")[1] for path in sorted(run.folder.glob(f"validate/{operator}.*.{device}.parquet"))]
        return plan.validated_on(registry.operator(operator, run.config.get("operators", ())), device)

    return catalog.tables(run.config, run.devices, validated)


def of_run(these, run):
    return [item for (name, _), item in these.items() if name == run.name]


def stems(these, kind):
    """A pattern of the stems of one kind, for a rule's wildcard."""
    return "|".join(sorted({re.escape(item.stem) for item in these.values() if item.kind == kind}))


def records_of(these, wildcards):
    return [f"results/{wildcards.run}/{path}" for path in these[wildcards.run, wildcards.stem].records]


def options_of(these, wildcards):
    return " ".join(these[wildcards.run, wildcards.stem].options)


def made(these, run, folder, ending):
    """The files that a run's figures or tables become."""
    return [f"results/{run.name}/{folder}/{item.stem}.{ending}" for item in of_run(these, run)]


def raw_records(run):
    """The raw record files of a run."""
    return sorted({f"results/{run.name}/{path}" for these in (FIGURES, TABLES) for item in of_run(these, run) for path in item.records})


def target_files(stage, name):
    """What the target of an experiment makes: its records, and the figures and tables that show them."""
    mine = [
        item
        for item in of_run(FIGURES, RUN) + of_run(TABLES, RUN)
        if item.stage == stage and any(experiment_behind(path)[:2] == (stage, name) for path in item.records)
    ]
    records = sorted({f"results/{RUN.name}/{path}" for item in mine for path in item.records})
    return records + [f"results/{RUN.name}/{item.what}s/{item.stem}.{ENDINGS[item.what]}" for item in mine]


def describe(stage, name):
    """One sentence on an experiment, for the list of targets."""
    if stage == "rag":
        its = serving(name)
        return f"RAG serving: {len(its['arms'])} arms ({', '.join(its['arms'])[:60]}) under the loads {', '.join(its['loads'])}."
    experiment = named(stage, name)
    what = "Sweep block sizes of" if stage == "sweep" else "Measure against peers"
    return f"{what} {experiment.operator.name}: {len(experiment.problems)} problems on {', '.join(RUN.devices)}."


def options(flag, values):
    """`flag` with its values, or nothing where there are none."""
    return f"{flag} {' '.join(str(value) for value in values)}" if values else ""


@contextlib.contextmanager
def one_line():
    """A user's mistake ends the command in one line."""
    try:
        yield
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


with one_line():
    if "from" in config and not Path("results", str(config["from"])).is_dir():
        raise BadInput(f"--config from={config['from']}: no run of that name in results/")
    RUN = resolve_run(config, workflow.overwrite_configfiles)
    PAPER = shipped_run()
    if PAPER.sealed and workflow.is_main_process:
        from analysis import sealing

        sealing.verify(PAPER.folder)
    EXPERIMENTS = [(stage, name) for stage in STAGES for name in RUN.config.get(stage) or {}]
    FIGURES = items(lambda run: catalog.figures(run.config, run.devices))
    TABLES = items(tables_of)

PAPER_RUNS = "|".join(sorted({RUN.name, PAPER.name}))
