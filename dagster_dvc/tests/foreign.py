"""Three DVC projects in the form of well-known examples, with small scripts of their own. None of them says anything about Dagster."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

STEP = '''\
"""step.py IN… --out OUT [--add N]: the numbers of the inputs, each with N added, written to OUT; fails on what is no number."""
import argparse, json
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("inputs", nargs="*")
parser.add_argument("--out", required=True)
parser.add_argument("--add", type=float, default=0)
words = parser.parse_args()
numbers = [float(line) + words.add for name in words.inputs for line in Path(name).read_text().split()]
out = Path(words.out)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text("".join(f"{number}\\n" for number in numbers))
'''
EVALUATE = '''\
"""evaluate.py MODEL FOLDER: metrics, a table and a picture for plots."""
import json, sys
from pathlib import Path

numbers = [float(line) for line in Path(sys.argv[1]).read_text().split()]
folder = Path(sys.argv[2])
(folder / "plots").mkdir(parents=True, exist_ok=True)
(folder / "metrics.json").write_text(json.dumps({"mean": sum(numbers) / len(numbers), "test": {"count": len(numbers)}}))
rows = [{"fpr": place / len(numbers), "tpr": number} for place, number in enumerate(numbers)]
(folder / "plots/roc.json").write_text(json.dumps({"roc": rows}))
(folder / "importance.png").write_bytes(b"\\x89PNG-not-really")
'''

# Four stages in a row, metrics and plots declared beside them: DVC's example-get-started.
GET_STARTED = {
    "params.yaml": "prepare: {add: 1}\ntrain: {add: 10}\n",
    "data/data.txt": "1\n2\n3\n",
    "src/step.py": STEP,
    "src/evaluate.py": EVALUATE,
    "dvc.yaml": """\
stages:
  prepare:
    cmd: python src/step.py data/data.txt --out data/prepared/train.txt --add ${prepare.add}
    deps: [data/data.txt, src/step.py]
    params: [prepare.add]
    outs: [data/prepared]
  featurize:
    cmd: python src/step.py data/prepared/train.txt --out data/features/train.txt
    deps: [data/prepared, src/step.py]
    outs: [data/features]
  train:
    desc: The model, as numbers
    cmd: python src/step.py data/features/train.txt --out model.txt --add ${train.add}
    deps: [data/features, src/step.py]
    params: [train.add]
    outs: [model.txt]
  evaluate:
    cmd: python src/evaluate.py model.txt eval
    deps: [model.txt, src/evaluate.py]
    outs: [eval]
metrics: [eval/metrics.json]
plots:
  - ROC: {x: fpr, y: {eval/plots/roc.json: tpr}}
  - eval/importance.png
""",
}

# A stage for each item of a list of parameters, and one that reads all: DVC's guide on templating.
FOREACH = {
    "params.yaml": "models:\n  us:\n    add: 1\n    region: us\n  uk:\n    add: 2\n    region: uk\n",
    "data/us.txt": "1\n",
    "data/uk.txt": "2\n",
    "step.py": STEP,
    "dvc.yaml": """\
vars: [params.yaml]
stages:
  train:
    foreach: ${models}
    do:
      cmd: python step.py data/${item.region}.txt --out models/${key}.txt --add ${item.add}
      deps: ["data/${item.region}.txt"]
      params: ["models.${key}"]
      outs: ["models/${key}.txt"]
  report:
    cmd: python step.py models/us.txt models/uk.txt --out report.txt
    deps: [models]
    outs: [report.txt]
  season:
    foreach: ["1", "2"]
    do:
      cmd: python step.py --out seasons/${item}.txt
      deps: ["data/us.txt"]
      outs: ["seasons/${item}.txt"]
""",
}

# Every pair of a matrix, with the best model declared as an artifact for the model registry.
MATRIX = {
    "data/mnist.txt": "1\n",
    "data/cifar.txt": "2\n",
    "step.py": STEP,
    "dvc.yaml": """\
stages:
  train:
    matrix:
      model: [cnn, xgb]
      data: [mnist, cifar]
    cmd: python step.py data/${item.data}.txt --out models/${item.model}-${item.data}.txt
    deps: ["data/${item.data}.txt"]
    outs: ["models/${item.model}-${item.data}.txt"]
  score:
    matrix:
      model: [cnn, xgb]
      data: [mnist, cifar]
    cmd: python step.py models/${item.model}-${item.data}.txt --out scores/${item.model}-${item.data}.yaml
    deps: ["models/${item.model}-${item.data}.txt"]
    metrics: ["scores/${item.model}-${item.data}.yaml"]
artifacts:
  best:
    path: models/cnn-mnist.txt
    type: model
    desc: The one to deploy
""",
}


def make(root: Path, files: Mapping[str, str]) -> Path:
    """A project of these files in a git repository of its own."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q", "-b", "main")
    (root / ".dvc").mkdir()  # what `dvc init` makes, in a hundredth of its time
    (root / ".dvc/config").touch()
    (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    commit(root, "The project")
    return root


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
