"What the tests share: where the project is, and how a user would call it."
import json, os, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
os.environ["HF_HUB_OFFLINE"] = "1"  # nothing that is tested may need a network
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave the core to the test beside this one: five times as fast
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"): os.environ.pop(name, None)  # of `make test` itself


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="every notebook under papermill too, slow cells included")


@pytest.fixture
def everything(request): return request.config.getoption("--all")


@pytest.fixture(autouse=True)
def as_before():
    "A training sets its process up (seeds, threads, deterministic kernels); each test begins as if none had, whatever ran before it."
    environ, torch = dict(os.environ), sys.modules.get("torch")
    if torch:
        threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        torch.manual_seed(0)
    yield
    os.environ.clear(); os.environ.update(environ)
    if torch: torch.set_num_threads(threads); torch.use_deterministic_algorithms(exact)


def sh(*args, cwd=ROOT, **env):
    "Run a command; its two streams come back as one text, in the order in which a user sees them."
    done = subprocess.run([str(a) for a in args], cwd=cwd, env=os.environ | env, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    done.text = "\n".join(line.split("\r")[-1] for line in done.stdout.splitlines())  # progress bars as they end
    return done


def make(target, **variables):
    "Call make as a user would, in the environment in which the tests run, without installing anything."
    venv = BIN.parent
    return sh("make", "--no-print-directory", "-o", f"{venv}/installed", target, f"VENV={venv}", *(f"{k}={v}" for k, v in variables.items()))


def refused(done):
    "The message of a run that ended with a `UserError`; make adds a line of its own."
    assert done.returncode != 0, done.text
    lines = [l for l in done.text.splitlines() if l and not l.startswith("make: ***")]
    assert lines[-1].startswith("UserError: "), done.text
    assert "Traceback" not in done.text
    return lines[-1]


def own_recordings(folder, accents=("German",), **splits):
    "A folder of clips as a user brings it: some of the embedded ones, with a metadata.csv. Give the clips of each accent, by split."
    from whisper_tutorial.data.corpus import load_corpus, select
    corpus, lines = load_corpus("common_voice:data/accents"), ["file_name,text,split,speaker,accent"]
    folder.mkdir()
    for accent in accents:
        for split, n in splits.items():
            for row in select(corpus, {"accent": accent, "split": split}).select(range(n)):
                shutil.copy(row["audio"]["path"], folder)
                lines.append(f'{row["id"]}.mp3,"{row["text"]}",{split},{row["speaker"]},{accent}')
    (folder/"metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def cells(notebook): return json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]


def source(cell): return "".join(cell["source"])


NOTEBOOKS = sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if not any(part[0] in "._" for part in p.relative_to(ROOT).parts))
JOBS = [p for p in NOTEBOOKS if any("parameters" in c["metadata"].get("tags", []) for c in cells(p))]
CHAPTERS = [p for p in NOTEBOOKS if p not in JOBS]
