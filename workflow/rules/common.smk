"""The config, the run that it names, and the functions that the rules share."""

import dataclasses
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

SHIPPED = "h200"
EMBEDDED = "config/smoke.yaml"
ASKED = set()


wildcard_constraints:
    operator="[^./]+",
    backend="[^./]+",
    experiment="[^./]+",
    architecture="sm_[0-9]+",


ENDINGS = {"figure": "pdf", "table": "tex"}
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
    from kernels import plan

    return plan.experiment(RUN.config, stage, name)


def again_file(stage, name):
    """The file that counts how often an experiment was asked for again; a job depends on it once it exists."""
    return RUN.folder / "again" / f"{stage}_{name}"


def again_input(stage, name):
    """The experiment's count of requests, one higher if this command asks for it again (--config again=true TARGET)."""
    from analysis.cli import replacing

    path = again_file(stage, name)
    if config.get("again") and workflow.is_main_process and not workflow.dryrun and path not in ASKED:
        targets = workflow.dag_settings.targets
        if not any(asks_for(target, *each) for each in EXPERIMENTS for target in targets):
            raise WorkflowError(f"--config again=true: name an experiment as the target, such as {stage}_{name}")
        if any(asks_for(target, stage, name) for target in targets):
            ASKED.add(path)
            made = [file for file in (RUN.folder / stage).glob(f"{name}.*") if file.suffix == ".parquet"]
            count = attempt(stage, name)
            # what was asked for before and never finished is resumed, not asked for once more
            if not path.is_file() or (made and all(file.stat().st_mtime > path.stat().st_mtime for file in made)):
                with replacing(path) as temporary:
                    temporary.write_text(f"{count}\n")
    return [str(path)] if path.is_file() else []


def attempt(stage, name):
    """The attempt that records are wanted of: 1, and one more each time the experiment was asked for again."""
    path = again_file(stage, name)
    return 1 + (int(path.read_text()) if path.is_file() else 0)


def asks_for(target, stage, name):
    """Whether a target is an experiment's rule or one of its record files."""
    return target == f"{stage}_{name}" or (Path(target).parent == RUN.folder / stage and Path(target).name.split(".")[0] == name)


def previous(stage, file):
    """The record file of the run that `--config from=NAME` names, if it has one."""
    path = Path("results", str(config.get("from")), stage, file)
    return [str(path)] if "from" in config and path.is_file() else []


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


def spec_of(stage, name):
    """What an experiment's records depend on in the config, as text: a job is run again when it changes."""
    return json.dumps(
        [
            RUN.config[stage][name],
            RUN.config["seed"],
            RUN.config.get("samples"),
            stage == "sweep" and RUN.config.get("race"),
        ],
        sort_keys=True,
    )


def spec_of_operator(name, stages, keys):
    """What the experiments of an operator say under some keys, as text: all that compiling or validating it depends on."""
    from kernels import plan

    mine = [each for each in plan.experiments(RUN.config) if each.operator.name == name and each.stage in stages]
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
    sweeps = [name for name in RUN.config.get("sweep") or {} if named("sweep", name).operator.name == experiment.operator.name]
    return [f"{RUN.folder}/tune/{name}.{device}.json" for name in sweeps]


def memory_mb(stage, name):
    """Host memory of a measuring job: what its largest problem needs, and room for the libraries."""
    experiment = named(stage, name)
    return 6000 + int(max(experiment.operator.memory(problem).host for problem in experiment.problems) / 1e6)


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
    """The item as its run can make it: of a sealed run from the records that it has, None where it has none of them."""
    if not run.sealed:
        return item
    records = tuple(path for path in item.records if (run.folder / path).is_file())
    return dataclasses.replace(item, records=records) if records else None


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
        if item.stage == stage and item.stem.split(".")[0] in stem_names(stage, name)
    ]
    records = sorted({f"results/{RUN.name}/{path}" for item in mine for path in item.records})
    return records + [f"results/{RUN.name}/{item.what}s/{item.stem}.{ENDINGS[item.what]}" for item in mine]


def stem_names(stage, name):
    return {f"{stage}_{name}", f"{stage}_{name}_latency", f"{stage}_{name}_throughput"}


def describe(stage, name):
    """One sentence on an experiment, for the list of targets."""
    if stage == "rag":
        its = RUN.config["rag"][name]
        return f"RAG serving: {', '.join(its['arms'])} at {len(its['load']['rates'])} offered rates."
    experiment = named(stage, name)
    what = "Sweep block sizes of" if stage == "sweep" else "Measure against peers"
    return f"{what} {experiment.operator.name}: {len(experiment.problems)} problems on {', '.join(RUN.devices)}."


def options(flag, values):
    """`flag` with its values, or nothing where there are none."""
    return f"{flag} {' '.join(str(value) for value in values)}" if values else ""


try:
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
except BadInput as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

PAPER_RUNS = "|".join(sorted({RUN.name, PAPER.name}))
