"""Measuring an experiment again (--config again=true), and starting from another run (--config from=NAME)."""

ASKED = set()


def again_input(stage, name):
    """The experiment's count of requests, one higher if this command asks for it again (--config again=true TARGET)."""
    from analysis.cli import replacing
    from analysis.config import again_file

    path = again_file(RUN.folder, stage, name)
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
    """The attempt that records are wanted of."""
    from analysis.config import attempt as attempt_of

    return attempt_of(RUN.folder, stage, name)


def asks_for(target, stage, name):
    """Whether a target is an experiment's rule or one of its record files."""
    return target == f"{stage}_{name}" or (Path(target).parent == RUN.folder / stage and Path(target).name.split(".")[0] == name)


def previous(stage, file):
    """The record file of the run that `--config from=NAME` names, if it has one."""
    path = Path("results", str(config.get("from")), stage, file)
    return [str(path)] if "from" in config and path.is_file() else []
