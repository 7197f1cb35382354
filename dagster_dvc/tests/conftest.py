"""A small real DVC project: two datasets, two entries, a stage that can be told how to behave, and an unnamed one."""

import shutil
from pathlib import Path

import pytest
from dvc_command import dvc

GRID = """\
datasets:
  toy: {file: in/toy.txt}
  voc: {file: in/voc.txt}
segments:
  lc__toy: {entry: lc, dataset: toy, code: c1, pool: ""}
  lc__voc: {entry: lc, dataset: voc, code: c1, pool: ""}
  un__toy: {entry: un, dataset: toy, code: c2, pool: "gpu"}
"""

DVC = """\
vars: [grid.yaml]
stages:
  datasets:
    foreach: ${datasets}
    do:
      cmd: python tools/work.py copy ${key} ${item.file} data/datasets/${key}
      deps: ["${item.file}"]
      outs: ["data/datasets/${key}"]
      meta: {dagster: {asset: datasets, partition: "${key}", group: inputs}}
  segments:
    foreach: ${segments}
    do:
      cmd: python tools/work.py segment ${key} data/datasets/${item.dataset} data/segments/${item.entry}/${item.dataset}
      deps: ["data/datasets/${item.dataset}"]
      params: [{grid.yaml: ["segments.${key}"]}]
      outs: ["data/segments/${item.entry}/${item.dataset}"]
      meta:
        dagster:
          asset: segments/${item.entry}
          partition: ${item.dataset}
          group: segments
          code_version: ${item.code}
          description: Segments of ${item.entry}
          kinds: "python, numpy"
          owners: team:vision
          tags: {paper: "yes"}
          pool: ${item.pool}
          report: reports/validation/${key}.json
          facts: .facts/${key}.json
          preview: previews/${key}.png
  leaderboard:
    cmd: python tools/work.py copy leaderboard data/segments/lc/toy reports/leaderboard
    deps: [data/segments]
    outs: [reports/leaderboard]
"""

WORK = '''\
"""What the stages run. BEHAVE says how: progress, fail-65, fail-75, fail-plain, sleep; runs.log counts the runs."""
import json, os, subprocess, sys, time
from pathlib import Path

what, key, source, target = sys.argv[1:]
behave = os.environ.get("BEHAVE", "")
with open("runs.log", "a") as log:
    log.write(key + "\\n")
def note(name, content):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(json.dumps(content))
if behave.startswith("slow-"):
    time.sleep(int(behave[5:-1]))
if behave == "sleep":
    child = subprocess.Popen(["sleep", "60"])
    note("pids.json", [os.getpid(), child.pid])
    child.wait()
if behave == "progress":
    for done in range(1, 33):
        print(json.dumps({"event": "progress", "what": "segments", "done": done, "total": 32, "unit": "images"}))
    print("a line of its own")
if behave == "fail-65":
    failures = [{"expectation": "areas_positive", "message": "2 regions of 0 pixels"}]
    note(f"reports/validation/{key}.json", {"success": False, "failures": failures})
    print(json.dumps({"event": "error", "exit_code": 65, "message": "Two regions have no pixels."}))
    sys.exit(65)
if behave.startswith("fail-75"):
    tries = Path("runs.log").read_text().split().count(key)
    if tries < 3:
        print(json.dumps({"event": "error", "exit_code": 75, "message": "The disk is full."}))
        sys.exit(75)
if behave == "fail-plain":
    sys.exit("ValueError: something broke")
if behave == "killed":
    os.kill(os.getppid() if "sh" in Path(f"/proc/{os.getppid()}/comm").read_text() else os.getpid(), 9)
source = Path(source)
text = "".join(p.read_text() for p in sorted(source.rglob("*")) if p.is_file()) if source.is_dir() else source.read_text()
if what == "segment":
    note(f"reports/validation/{key}.json", {"success": True})
    note(f".facts/{key}.json", {"seconds": 1.5, "rows": 7, "peak_memory_mb": 12.25, "nested": {"a": 1}})
    Path("previews").mkdir(exist_ok=True)
    Path(f"previews/{key}.png").write_bytes(b"\\x89PNG-not-really")
    text = f"{key}:{text}"
Path(target).mkdir(parents=True, exist_ok=True)
Path(target, "x.txt").write_text(text)
'''


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    for name, text in {"grid.yaml": GRID, "dvc.yaml": DVC, "tools/work.py": WORK, "in/toy.txt": "toy", "in/voc.txt": "voc"}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    dvc(root, "init", "--no-scm", "-q")
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A fresh copy of the project, nothing built."""
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture(scope="session")
def built_template(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(template, tmp_path_factory.mktemp("built") / "project"))
    dvc(root, "repro", "-q", "datasets")
    (root / "runs.log").unlink()
    return root


@pytest.fixture
def fed(built_template: Path, tmp_path: Path) -> Path:
    """A fresh copy of the project with its datasets built."""
    return Path(shutil.copytree(built_template, tmp_path / "project"))
