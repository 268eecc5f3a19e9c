"Every chapter runs, and its checks hold."
import re

import pytest
from conftest import BIN, CHAPTERS, JOBS, ROOT, sh

LIMIT_S = 20  # of a chapter, on two cores that are free


def test_chapters(everything):
    jobs = "|".join(sorted(p.name.replace(".", "[.]") for p in JOBS))
    done = sh(BIN/"nbdev_test", "--n_workers", "2", "--timing", "--skip_file_re", f"^([_.]|({jobs})$)", *(["--flags", "slow"] if everything else []))
    assert done.returncode == 0, done.text
    seconds = {name: int(s) for name, s in re.findall(r"^(\S+[.]ipynb): (\d+) secs", done.text, re.M)}
    assert set(seconds) == {p.name for p in CHAPTERS}
    print(*(f"{s:3d} s {name}" for name, s in seconds.items()), sep="\n")
    slow = {name: s for name, s in seconds.items() if s > 2*LIMIT_S}  # a machine may be shared
    assert not slow or everything, slow


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_runs_from_the_root(path, everything, tmp_path):
    if not everything: pytest.skip("make test-all")
    if path.stem == "index" and not (ROOT/"_runs/quickstart/metrics.json").exists(): pytest.skip("it shows what make quickstart has left")
    done = sh(BIN/"papermill", "--no-progress-bar", path, tmp_path/path.name, cwd=ROOT, JUPYTER_PREFER_ENV_PATH="1")
    assert done.returncode == 0, done.text
