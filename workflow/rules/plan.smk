"""The bill: what a command would measure, said before anything is submitted; and what is left out, said again at the end."""

GENERAL = {"all", "seal", "report_html", *(["paper", "figures", "tables"] if PAPER is RUN else [])}
"""The targets that are made from all of the run's records."""


def behind(file):
    """The record files of experiments behind a file of the run, as paths in the run's folder."""
    path = Path(os.path.relpath(file))
    if not path.is_relative_to(RUN.folder):
        return []
    item = (FIGURES | TABLES).get((RUN.name, path.stem))
    if path.parent.name in ("figures", "tables"):
        return item.records if item else []
    if path.parent == RUN.folder:  # the manifest, numbers and reports
        return [str(Path(record).relative_to(RUN.folder)) for record in raw_records(RUN)]
    stage = "sweep" if path.parent.name in ("tune", "shards") else path.parent.name
    return [f"{stage}/{path.stem.rpartition('.')[0] if path.parent.name == 'shards' else path.stem}.parquet"]


@functools.cache
def needed():
    """The experiments that the named targets are made from, as (stage, experiment, device); a bench needs its operator's sweeps.

    A RAG experiment has no device.
    """
    found = {experiment_behind(record) for file in target_paths() for record in behind(file)}
    for _, name, device in [each for each in found if each[0] == "bench"]:
        found |= {("sweep", sweep, device) for sweep in sweeps_of(named("bench", name).operator)}
    return [(stage, name, device) for stage, name in EXPERIMENTS for device in ("", *RUN.devices) if (stage, name, device) in found]


def target_paths():
    """The files that the named targets ask for; without any, all."""
    paths = []
    for target in workflow.dag_settings.targets or ["all"]:
        experiment = next((each for each in EXPERIMENTS if target == "_".join(each)), None)
        if experiment:
            paths += target_files(*experiment)
        elif target in GENERAL:
            paths += raw_records(RUN)
        else:
            paths.append(target)
    return paths


def left_out():
    """A line for all that the command asks for and that cannot be measured."""
    targets = set(workflow.dag_settings.targets)
    measuring = [each for each in EXPERIMENTS if each[0] in MEASURING]
    asked = [
        (stage, name, device)
        for stage, name in measuring
        for device in RUN.devices
        if not targets or targets & GENERAL or any(asks_for(target, stage, name) for target in targets) or (stage, name, device) in needed()
    ]
    return [f"left out: {line}" for each in asked for line in planner().feasible(*each).left_out]


def bill_lines():
    """The bill's lines: an experiment on a device each; a RAG experiment is measured on the first."""
    lines = []
    for stage, name, device in needed():
        if stage in MEASURING and measurable(stage, name, device):
            partition = resource(device, "slurm_partition", "") if ON_SLURM else ""
            try:
                line = planner().line(stage, name, device, attempt(stage, name), previous(stage, f"{name}.{device}.parquet"))
                lines.append(dataclasses.replace(line, partition=partition))
            except BadInput as error:  # its job will say the same; the others go on
                say(f"error: {stage}.{name} on {device}: {error}")
        elif stage == "rag":
            lines.append(served_line(name))
    return lines


def served_line(name):
    """The bill's line of a RAG experiment, with as many points and minutes as it takes at most: searches end when they have found a rate."""
    from analysis import progress
    from kernels.planning.bill import Line
    from kernels.planning.estimate import ASSUMED, Estimate

    settings, target = serving(name), progress.served(RUN.folder, name, RUN.config["rag"][name])
    target.look()
    most = len(settings["arms"]) * settings["repeats"] * sum(map(cost.points, settings["loads"].values()))
    recorded = most if target.over else min(most, len(target.points))
    left = Estimate.of(ASSUMED, 60 * cost.minutes(settings) * (1 - recorded / most))
    partition = resource(RUN.devices[0], "slurm_partition", "") if ON_SLURM else ""
    return Line(f"rag.{name}", RUN.devices[0], int(recorded < most), most, recorded, 0, left, partition)


def say(*texts):
    """Print what is not empty to standard error."""
    for text in filter(None, texts):
        print(text, file=sys.stderr, flush=True)


def say_bill(whole):
    """Print the bill, the whole of it or a line a device, and what is left out. A sealed run has none."""
    from kernels.planning import bill

    lines = [] if RUN.sealed else bill_lines()
    if lines:
        say(bill.table(lines) if whole else bill.brief(lines))
    say_left_out()


def say_left_out():
    say(*([] if RUN.sealed else left_out()))


@functools.cache
def announce():
    """Say the bill once where this is a dry run, before Snakemake lists its jobs: as the first of their inputs is asked for."""
    if workflow.is_main_process and workflow.output_settings.dryrun:
        say_bill(whole=True)


def announced(files):
    """Files, after the bill."""
    announce()
    return files


def cut_for(stage, wildcards, files):
    """Files that a job is made from, after the bill; its experiment is cut into shards by then."""
    planner().cut(stage, wildcards.experiment, wildcards.device)
    return announced(files)
