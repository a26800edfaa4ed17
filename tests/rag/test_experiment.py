"""The experiment end to end with real services: complete records, nothing measured twice, nothing lost by a kill."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis.cli import run
from analysis.environment import ROOT
from kernels.device import Device
from rag import config, corpus, experiment
from rag.columns import POINT as COLUMNS_OF_A_POINT
from rag.columns import REQUEST
from rag.points import plan

from .serving import served

COLUMNS = (
    "experiment arm load rate repeat probe multiple found_rps point attempt trial request scheduled_s sent_s first_token_s end_s status "
    "http queue_ms embed_ms retrieve_ms generate_ms batch question source retrieved rank tokens_in tokens_out lag_ms model weights "
    "embedder device device_kind versions provenance started little_ratio lag_p99_ms ceiling_rps valid invalid slo_ms arm_settings "
    "load_settings"
)


def arguments(path: Path, folder: Path, *more: str) -> list[str]:
    files = ["--config", str(path), "--out", str(folder / "tiny.parquet"), "--journal", str(folder / "journal" / "tiny")]
    return [*files, "--name", "tiny", "--device", "cpu", *more]


def call(monkeypatch, words: list[str]) -> int:
    """The command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["rag.experiment", *words])
    with pytest.raises(SystemExit) as ended:
        run(experiment.main)
    return int(ended.value.code or 0)


def journal_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "journal" / "tiny").glob("*.jsonl")}


def forbid_services(monkeypatch) -> None:
    for name in ("launched", "senders"):
        monkeypatch.setattr(experiment, name, lambda *_: pytest.fail("something was started"))


def test_end_to_end_then_nothing_again(block, write_config, tmp_path, monkeypatch, capsys):
    block["loads"] = {"poisson": {}, "chat": {"stream": True, "rates": [10]}}
    path, first = write_config(block), tmp_path / "one"
    assert call(monkeypatch, arguments(path, first)) == 0
    assert "course, poisson at 20/s: " in capsys.readouterr().err
    frame = pd.read_parquet(first / "tiny.parquet")
    assert set(COLUMNS.split()) <= set(frame.columns)
    check_rows(frame[frame["load"] == "poisson"].reset_index(drop=True), block)
    chat = frame[(frame["load"] == "chat") & (frame["arm"] == "batched")]
    assert set(chat["status"]) == {"ok"} and set(chat["tokens_out"]) == {3} and chat["generate_ms"].gt(0).all()
    assert (
        chat["first_token_s"].between(chat["sent_s"], chat["end_s"]).all()
        and frame[frame["load"] == "poisson"]["first_token_s"].isna().all()
    )

    journal = journal_of(first)
    assert [len(text.splitlines()) for text in journal.values()] == [4]
    forbid_services(monkeypatch)
    path = write_config({**block, "slo_ms": 250})
    assert call(monkeypatch, arguments(path, first)) == 0
    assert journal_of(first) == journal
    again = pd.read_parquet(first / "tiny.parquet")
    assert set(again["slo_ms"]) == {250.0}
    pd.testing.assert_frame_equal(frame.drop(columns="slo_ms"), again.drop(columns="slo_ms"))

    second = tmp_path / "two"
    assert call(monkeypatch, arguments(path, second, "--from", str(first / "tiny.parquet"))) == 0
    pd.testing.assert_frame_equal(again, pd.read_parquet(second / "tiny.parquet"))
    assert call(monkeypatch, arguments(path, second, "--from", str(first / "tiny.parquet"))) == 0
    assert [len(text.splitlines()) for text in journal_of(second).values()] == [4]


def check_rows(frame: pd.DataFrame, block: dict) -> None:
    assert set(frame["arm"]) == {"course", "batched"} and set(frame["rate"]) == {20.0} and set(frame["attempt"]) == {1}
    course, batched = (frame[frame["arm"] == arm].reset_index(drop=True) for arm in ("course", "batched"))
    for name in ("request", "scheduled_s", "question", "source"):  # the arms get the same load
        assert (course[name] == batched[name]).all()
    assert (frame["sent_s"] >= frame["scheduled_s"]).all() and (frame["end_s"] > frame["sent_s"]).all()
    assert set(frame["status"]) == {"ok"} and set(frame["http"]) == {200}
    assert set(frame["weights"]) == {"random"} and set(frame["device_kind"]) == {"cpu"}
    assert set(frame["tokens_out"]) == {3} and (course["batch"] == 1).all() and batched["batch"].between(1, 4).all()
    for row in frame.to_dict("records"):
        documents = [chunk.rpartition("#")[0] for chunk in row["retrieved"]]
        assert len(documents) == block["k"]
        assert row["rank"] == (documents.index(row["source"]) + 1 if row["source"] in documents else 0)
    assert (frame["rank"] == 1).mean() > 0.8  # six texts on unlike things
    assert json.loads(frame["provenance"][0])["commit"] and "torch" in json.loads(frame["versions"][0])
    stages = frame[["queue_ms", "embed_ms", "retrieve_ms", "generate_ms"]].sum(axis=1)
    assert (stages <= (frame["end_s"] - frame["sent_s"]) * 1e3).all()


def test_a_kill_loses_no_point_and_leaves_no_service(block, write_config, tmp_path):
    del block["arms"]["course"]
    block["load"]["rates"] = [21, 11, 4]
    path = write_config(block)
    command = [sys.executable, "-m", "rag.experiment", *arguments(path, tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        first = wait_for(lambda: next((text for text in journal_of(tmp_path).values() if text.endswith(b"\n")), None))
        services = children(process.pid)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert services and wait_for(lambda: not any(map(alive, services)))

    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    kept = sorted(journal_of(tmp_path).items())
    assert kept[0][1].startswith(first)
    records = [json.loads(line) for _, text in kept for line in text.splitlines()]
    assert [record["rate"] for record in records] == [21, 11, 4]
    frame = pd.read_parquet(tmp_path / "tiny.parquet")
    assert not frame.duplicated(["point", "attempt", "request"]).any()
    assert list(frame.groupby("rate", sort=False).size()) == [len(record["requests"]["status"]) for record in records]


def wait_for(condition, seconds: float = 120.0):
    """What `condition` gives once it is true: another process makes it so."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)
    return value


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_arm_that_stays_busy_gets_a_new_service(monkeypatch):
    started, states = [], iter([True, False, True])

    @contextlib.contextmanager
    def launched(*_):
        started.append(len(started))
        yield f"http://{started[-1]}"

    monkeypatch.setattr(experiment, "launched", launched)
    monkeypatch.setattr(experiment, "idle", lambda url: next(states))
    used = list(experiment._served(iter("abcd"), [], Path("log")))
    assert used == [("a", "http://0"), ("b", "http://0"), ("c", "http://1"), ("d", "http://1")]


FACTS = dict.fromkeys(("model", "weights", "embedder", "embedder_weights", "corpus"), "x") | {"device": "cpu", "running": 0, "chunks": 6}


def counted(lives: int):
    """A service as an application: it says what it is, and answers every question, but ends at request number `lives`."""
    left = iter(range(lives - 1, -1, -1))

    async def app(scope, receive, send):
        await receive()
        if scope["path"] == "/rag" and next(left) == 0:
            app.end()
        body = {"/ready": FACTS, "/health": {"restarts": {"instances": 0, "stages": {}}}}.get(scope["path"], {})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return app


@pytest.fixture
def services(monkeypatch, tmp_path):
    """Instead of real ones, services that end at the request of that number, one after the other; returns those still to be started."""
    lives: list[int] = []

    @contextlib.contextmanager
    def launched(words, log):
        app = counted(lives.pop(0))
        with served(app) as url:
            log.parent.mkdir(exist_ok=True)
            log.write_text("loading\nout of memory\n")
            yield url

    monkeypatch.setattr(experiment, "launched", launched)
    monkeypatch.setattr(experiment, "_embed", lambda *_: None)
    monkeypatch.setattr(experiment, "ceiling", lambda _, stream: 1000.0)
    return lives


@pytest.mark.parametrize(
    ("lives", "trials"),
    [pytest.param([15, 10**6], [2, 1], id="once"), pytest.param([15, 1, 10**6], [2, 1], id="twice")],
)
def test_a_service_that_ends_is_started_anew_and_its_point_measured_once_more(
    block, write_config, tmp_path, monkeypatch, capsys, services, lives, trials
):
    del block["arms"]["course"]
    block["load"]["rates"] = [40, 20]
    services.extend(lives)
    path = write_config(block)
    assert call(monkeypatch, arguments(path, tmp_path)) == 0
    frame = pd.read_parquet(tmp_path / "tiny.parquet").drop_duplicates("point")
    assert list(frame["rate"]) == [40, 20] and list(frame["trial"]) == trials and not services
    assert list(frame["valid"]) == [len(lives) == 2, True]
    said = capsys.readouterr().err
    named = "batched under poisson at 40/s (repeat 1): not valid: the service ended: loading\nout of memory"
    assert (named in said) == (len(lives) == 3) and "40/s: 1" in said and "the service ended" in said
    records = [json.loads(line) for text in journal_of(tmp_path).values() for line in text.splitlines()]
    assert len(records) == 3  # what came out invalid stays in the journal


def test_an_arm_that_does_not_start_fails_alone(block, write_config, tmp_path, monkeypatch, capsys, services):
    real = experiment.launched

    @contextlib.contextmanager
    def launched(words, log):
        if "course" in words:
            raise RuntimeError("the service ended with code 9")
        with real(words, log) as url:
            yield url

    monkeypatch.setattr(experiment, "launched", launched)
    services.append(10**6)
    assert call(monkeypatch, arguments(write_config(block), tmp_path)) == 1
    assert "course: the service ended with code 9" in capsys.readouterr().err
    assert set(pd.read_parquet(tmp_path / "tiny.parquet")["arm"]) == {"batched"}


def answered_below(rate_of: dict[str, float]):
    """`measure`, without a service: requests are in time up to the arm's rate, and beyond it late."""

    def measure(read, point, bench, url):
        late = point.rate > rate_of[point.arm]
        number = 20
        requests = {name: [{"int64": 0, "double": 0.0, "string": "ok", "strings": []}[kind]] * number for name, kind in REQUEST.items()}
        requests |= {"end_s": [9.0 if late else 0.1] * number, "request": list(range(number))}
        values = {"int64": 0, "double": 0.0, "string": "", "bool": True, "json": {}}
        header = {name: values[kind] for name, kind in COLUMNS_OF_A_POINT.items()}
        return header | {"point": point.id, "arm": point.arm, "rate": point.rate, "repeat": point.repeat, "requests": requests}

    return measure


@pytest.mark.parametrize("allowed", [0, 1, 4, 9])
def test_a_search_goes_on_where_it_ended(block, write_config, tmp_path, monkeypatch, services, allowed):
    """Whatever number of points was measured before the kill: none is measured again, and the whole has the same points."""
    block["arms"] = {"batched": {"service": "batched"}, "echo": {"service": "echo"}}
    block["load"] = {"search": {"start": 20, "precision": 1.2}, "times": [0.5, 2], "seconds": 1}
    path, measured = write_config(block), []
    measure = answered_below({"batched": 70, "echo": 1000})

    def counting(*given):
        if len(measured) == stop:
            raise KeyboardInterrupt
        measured.append(given[1].id)
        return measure(*given)

    monkeypatch.setattr(experiment, "measure", counting)
    monkeypatch.setattr(experiment, "senders", lambda _: contextlib.nullcontext())
    stop = allowed
    services.extend([10**6] * 8)
    assert call(monkeypatch, arguments(path, tmp_path)) == 130
    stop = -1
    assert call(monkeypatch, arguments(path, tmp_path)) == 0
    assert len(set(measured)) == len(measured)
    frame = pd.read_parquet(tmp_path / "tiny.parquet").drop_duplicates("point")
    assert list(frame["point"]) == [*dict.fromkeys(measured)]
    found = frame.groupby("arm")["found_rps"].first()
    assert 70 / 1.2 < found["batched"] <= 70 and 1000 / 1.2 < found["echo"] <= 1000
    multiples = frame[frame["multiple"].notna()].set_index(["arm", "multiple"])["rate"]
    assert {arm: multiples[arm, 2.0] / found[arm] for arm in found.index} == {"batched": 2, "echo": 2}

    before = len(measured)
    assert call(monkeypatch, arguments(path, tmp_path, "--attempt", "2")) == 0
    assert len(measured) == 2 * before and set(measured[before:]) == set(measured[:before])


def test_what_identifies_a_point(block, write_config):
    def ids(change=lambda block: None, device="CPU A", seed=5):
        changed = json.loads(json.dumps(block))
        change(changed)
        read = config.read(write_config(changed, seed=seed), "tiny")
        texts = corpus.build(read.settings["corpus"], read.seed, "test")
        series = plan(read, texts, Device("cpu", device))
        return {(one.arm, rate, one.repeat): one.point(rate).id for one in series for rate in one.settings["rates"]}

    same = ids()
    assert len(set(same.values())) == len(same) == 2
    assert ids(lambda block: block.update(slo_ms=1)) == same
    more = ids(lambda block: (block["load"].update(rates=[20, 30]), block.update(repeats=2)))
    assert len(set(more.values())) == 8 and same.items() <= more.items()
    only = ids(lambda block: block["arms"]["batched"].update(max_batch=5))
    assert only["course", 20.0, 1] == same["course", 20.0, 1] and only["batched", 20.0, 1] != same["batched", 20.0, 1]
    others = [
        ids(lambda block: block["corpus"].update(chunk_words=13)),
        ids(lambda block: block["generator"].update(new_tokens=4)),
        ids(lambda block: block["load"].update(seconds=2)),
        ids(lambda block: block["load"].update(deadline_s=4)),
        ids(lambda block: block["load"].update(stream=True)),
        ids(lambda block: block["load"].update(arrivals="constant")),
        ids(lambda block: block.update(k=1)),
        ids(lambda block: block.update(questions=5)),
        ids(device="CPU B"),
        ids(seed=6),
    ]
    for other in others:
        assert other.keys() == same.keys() and not set(other.values()) & set(same.values())


BAD = {
    "unknown key": (lambda b, _: b.update(arrms={}), (), "unknown key 'arrms'"),
    "missing model": (lambda b, _: b.update(embedder="no/such"), (), "rag.tiny.embedder: 'no/such' is neither"),
    "missing generator": (lambda b, _: b.update(generator={"model": "no/such"}), (), "rag.tiny.generator: 'no/such' is neither"),
    "empty corpus": (lambda b, folder: b["corpus"].update(folder=str(folder)), (), "no text in"),
    "no requests": (lambda b, _: b["load"].update(rates=[0.001]), (), "no request in 1 s at 0.001 a second"),
    "no such run": (lambda b, _: None, ("--from", "none.parquet"), "none.parquet: no such record file"),
    "no such experiment": (lambda b, _: None, ("--name", "other"), "no experiment 'other'; one of tiny"),
    "no GPU": (lambda b, _: None, ("--device", "cuda"), "--device cuda: no NVIDIA GPU"),
}


@pytest.mark.parametrize("change, more, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(block, write_config, tmp_path, monkeypatch, capsys, change, more, message):
    forbid_services(monkeypatch)
    monkeypatch.setattr("kernels.device.gpu_state", lambda: None)
    (tmp_path / "empty").mkdir()
    change(block, tmp_path / "empty")
    assert call(monkeypatch, arguments(write_config(block), tmp_path, *more)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and message in captured.err
    assert not (tmp_path / "tiny.parquet").exists() and not journal_of(tmp_path)


def test_helpers_of_the_command_line_need_no_torch():
    """The load's process stays light: what it imports has neither torch nor transformers."""
    code = "import sys, rag.experiment; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
