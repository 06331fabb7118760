"""The experiment's own graph for DVC and for Prefect's cache: as many stages, each hashes the files it reads."""

import json
import subprocess
import sys
from pathlib import Path

import yaml
from cache_case import Case, seconds

HASH = """
import hashlib, sys
from pathlib import Path
out, *read = map(Path, sys.argv[1:])
out.write_text(hashlib.sha256(b"".join(path.read_bytes() for path in read)).hexdigest())
"""
# The default, INPUTS + TASK_SOURCE + RUN_ID, never hits in another run: its first two parts do.
FLOW = """
import hashlib, json, sys
from pathlib import Path
from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

@task(persist_result=True, cache_policy=INPUTS + TASK_SOURCE)
def stage(name, read):
    return hashlib.sha256(repr((name, read)).encode()).hexdigest()

@flow
def graph(reads):
    made = {"source": hashlib.sha256(Path("source").read_bytes()).hexdigest()}
    for name, read in reads.items():
        made[name] = stage(name, [made[one] for one in read])
    print(made)

graph(json.loads(Path("graph.json").read_text()))
"""


def reads_of(case: Case) -> dict[str, list[str]]:
    """Cell -> the cells it reads, from the records of a finished run; `source` where it reads none."""
    made: dict[tuple[str, str], str] = {}
    records = {}
    for path in (case.state / "latest" / "timed").glob("*.json"):
        record = json.loads(path.read_bytes())
        records[path.stem] = record
        made |= {
            (f"{record['stage']}/{name}", output["sha256"]): path.stem for name, output in record["outputs"].items()
        }
    reads = {
        cell: sorted({made.get((one["artifact"], one["sha256"]), "source") for one in record["inputs"].values()})
        for cell, record in records.items()
    }
    ordered: dict[str, list[str]] = {}
    while len(ordered) < len(reads):
        ordered |= {cell: read for cell, read in reads.items() if all(one in {*ordered, "source"} for one in read)}
    return ordered


def dvc(folder: Path, reads: dict[str, list[str]], environment: dict[str, str]) -> None:
    """A DVC project of this graph, reproduced once."""
    folder.mkdir()
    (folder / "hash.py").write_text(HASH)
    (folder / "source").write_text("source")
    stages = {
        cell.replace("@", "_"): {
            "cmd": f"{sys.executable} hash.py {cell} {' '.join(read)}",
            "deps": ["hash.py", *read],
            "outs": [cell],
        }
        for cell, read in reads.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    command = [sys.executable, "-m", "dvc"]
    subprocess.run([*command, "init", "--no-scm", "-q"], cwd=folder, env=environment, check=True)
    seconds([*command, "repro", "-q"], folder, environment)


def prefect(folder: Path, reads: dict[str, list[str]], environment: dict[str, str]) -> None:
    """A Prefect flow of this graph, run once."""
    folder.mkdir()
    (folder / "graph.json").write_text(json.dumps(reads))
    (folder / "source").write_text("source")
    (folder / "graph.py").write_text(FLOW)
    seconds([sys.executable, "graph.py"], folder, environment)
