"The project as a whole: what no chapter can test about itself."
import ast, hashlib, json, re, shutil, subprocess, sys
from pathlib import Path

import pytest, yaml
from conftest import BIN, CHAPTERS, JOBS, NOTEBOOKS, ROOT, cells, make, sh, source
from whisper_tutorial.training.recipe import Recipe, load_recipe, read_recipe

PARTS = ["core", "speech", "data", "evaluation", "training", "deploy"]  # each may import those before it
MODULES = sorted(p for p in (ROOT/"whisper_tutorial").rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))


def dotted(path): return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def tracked():
    "The files that are, or would be, in a commit."
    if not (ROOT/".git").exists(): pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT/n for n in names.split("\0") if n and (ROOT/n).is_file()]


def size(folder): return sum(p.stat().st_size for p in (ROOT/folder).rglob("*") if p.is_file() and not p.is_symlink())


@pytest.fixture
def copy(tmp_path):
    "A copy of the sources, so that a failing test leaves the user's own as they are."
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "nbdev.yml", ".gitattributes")
    for name in ("nbs", "whisper_tutorial"): shutil.copytree(ROOT/name, tmp_path/name, symlinks=True, ignore=skip)
    for name in ("settings.ini", "pyproject.toml", "_quarto.yml", "Makefile", "README.md", "constraints.txt"):
        if (ROOT/name).exists(): shutil.copy(ROOT/name, tmp_path)
    return tmp_path


def hashes(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("command", ["nbdev_export", "nbdev_clean"])
def test_notebooks_and_package_are_one(copy, command):
    before = hashes(copy)
    done = sh(BIN/command, cwd=copy)
    assert done.returncode == 0, done.text
    after = hashes(copy)
    changed = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
    assert not changed, f"run {command} and commit what it changes: {changed}"


IMPORT = """
import builtins, dis, importlib, sys, types
def names(code):
    yield from (i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType): yield from names(inner)
for name in sys.argv[1:]:
    for old in [m for m in sys.modules if m.startswith("whisper_tutorial")]: del sys.modules[old]
    module = importlib.import_module(name)
    for used in sorted(set(names(compile(open(module.__file__).read(), name, "exec")))):
        if not hasattr(module, used) and not hasattr(builtins, used): print(f"{name} uses {used}, which it does not have")
"""


def test_every_module_stands_alone():
    "A name that only the notebook knows passes nbdev_test, and breaks the package."
    done = sh(sys.executable, "-c", IMPORT, *map(dotted, MODULES))
    assert done.returncode == 0, done.text
    assert " uses " not in done.text, done.text


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_part_imports_only_the_parts_before_it(path):
    here = dotted(path).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(here[:-node.level] + ([node.module] if node.module else [])) if node.level else node.module
            found = [f"{module}.{a.name}" for a in node.names] if module == "whisper_tutorial" else [module]
        else: continue
        for name in found:
            part = (name.split(".") + [""])[1]
            if name.split(".")[0] == "whisper_tutorial" and part in PARTS:
                assert PARTS.index(part) <= PARTS.index(here[1]), f"{dotted(path)} imports {name}, which comes later in the book"


def test_every_module_has_its_chapter():
    exported = {m[1] for p in CHAPTERS for c in cells(p) if (m := re.match(r"#\| default_exp (\S+)", source(c)))}
    assert exported == {dotted(p).removeprefix("whisper_tutorial.") for p in MODULES}


def test_the_wheel_lists_every_part():
    import tomllib
    listed = set(tomllib.loads((ROOT/"pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {dotted(p.parent) for p in (ROOT/"whisper_tutorial").rglob("__init__.py")}
    assert listed == there | {"whisper_tutorial._assets"}


def test_one_version_number():
    import configparser, whisper_tutorial
    settings = configparser.ConfigParser(); settings.read(ROOT/"settings.ini")
    assert settings["DEFAULT"]["version"] == whisper_tutorial.__version__


@pytest.mark.parametrize("folder, most", [("nbs", 12e6), ("data", 20e6), ("data/accents", 10e6), ("data/nano", 10e6)])
def test_size(folder, most): assert 0 < size(folder) < most


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_small_and_has_run(path):
    assert path.stat().st_size < 400_000, "committed outputs are small: fewer dots per inch, shorter sounds"
    for cell in cells(path):
        if cell["cell_type"] == "code": assert all(o["output_type"] != "error" for o in cell["outputs"]), source(cell)


def parameters(path):
    "Name → default, as a notebook's parameters cell declares them."
    cell, = [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]
    found = {}
    for line in ast.parse(source(cell)).body:
        assert isinstance(line, ast.AnnAssign), f"a parameter has a type: {ast.unparse(line)}"
        found[line.target.id] = ast.literal_eval(line.value)
    return found


@pytest.mark.parametrize("path", JOBS, ids=lambda p: p.stem)
def test_a_job_watches_its_parameters(path):
    "The cell before the parameters remembers the names, one after them compares: papermill itself takes any name."
    found = cells(path)
    place = next(i for i, c in enumerate(found) if "parameters" in c["metadata"].get("tags", []))
    assert any("set(globals())" in source(c) for c in found[:place])
    assert any("job_parameters(" in source(c) for c in found[place:])
    assert parameters(path)["smoke"] is False and "out_dir" in parameters(path)


FIELDS = {name: field.default for name, field in Recipe.model_fields.items()}


def test_finetune_has_the_keys_of_a_recipe_and_their_defaults():
    assert parameters(ROOT/"nbs/runs/finetune.ipynb") == FIELDS


def test_quickstart_has_a_few_keys_with_the_values_of_its_recipe():
    found, recipe = parameters(ROOT/"nbs/quickstart.ipynb"), load_recipe("quickstart").model_dump()
    assert found == {k: recipe[k] for k in ("data", "model", "steps", "seed", "smoke", "out_dir")}


def test_pretrain_has_the_keys_of_a_recipe_and_four_of_its_own():
    found, nano = parameters(ROOT/"nbs/runs/pretrain.ipynb"), load_recipe("nano").model_dump()
    assert set(found) == {*FIELDS, "n_words", "n_sentences", "recode", "publish"}
    assert not [k for k in FIELDS if found[k] not in (FIELDS[k], nano[k])]


@pytest.mark.parametrize("path", sorted((ROOT/"nbs/recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_recipe_is_complete(path):
    assert load_recipe(path.stem)
    head = [l for l in path.read_text().splitlines() if l.startswith("#")]
    assert any(l.startswith("#   make ") for l in head), "its first lines say which command runs it"
    assert not any(isinstance(v, str) and re.fullmatch(r"[\d.]+e-?\d+", v) for v in read_recipe(path.stem).values()), \
        "YAML takes 5e-5 for a text: write 5.0e-5"


def site(entries):
    for e in entries: yield from [e] if isinstance(e, str) else [e["href"]] if "href" in e else site(e["contents"])


def test_the_sidebar_names_every_notebook_and_no_other():
    named = list(site(yaml.safe_load((ROOT/"_quarto.yml").read_text())["website"]["sidebar"]["contents"]))
    assert len(set(named)) == len(named)
    assert set(named) == {p.relative_to(ROOT/"nbs").as_posix() for p in NOTEBOOKS}


def test_the_site_is_configured_once():
    assert (ROOT/"nbs/_quarto.yml").is_symlink() and (ROOT/"nbs/_quarto.yml").resolve() == ROOT/"_quarto.yml"


def test_links_between_chapters_lead_somewhere():
    for path in NOTEBOOKS:
        for cell in cells(path):
            if cell["cell_type"] != "markdown": continue
            for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", source(cell)):
                assert (path.parent/link).exists(), f"{path.relative_to(ROOT)} links to {link}"


SITE = """
import sys
from execnb.nbio import read_nb
from nbdev.processors import FilterDefaults
for name in sys.argv[1:]:
    try: FilterDefaults()(read_nb(name))
    except Exception as e: print(f"FAILED {name}: {e}{e.__cause__!r}")
"""


def test_the_site_can_be_made():
    "nbdev_docs runs the exported cells and every cell with an import, and no other: an import beside code that needs other cells breaks the site."
    done = sh(sys.executable, "-W", "ignore", "-c", SITE, *CHAPTERS)
    assert done.returncode == 0 and "FAILED" not in done.text, done.text


def test_the_readme_is_the_index(copy):
    before = (copy/"README.md").read_text()
    done = sh("make", "-o", f"{BIN.parent}/installed", "readme", f"VENV={BIN.parent}", cwd=copy)
    assert done.returncode == 0, done.text
    assert (copy/"README.md").read_text() == before, "nbs/index.ipynb has changed: make readme"
    for link in re.findall(r"\]\(([^)#:\s]+)\)", before): assert (ROOT/link).exists(), link


def test_the_house_is_not_told_where_it_was_built():
    "No machine, folder or package server of its makers stands in the project; the folder of real speech in one line of .ci/run."
    words = ["/wor" + "k/", "pypi" + ".org", "python" + "hosted", "deb.debian" + ".org", "npmjs" + ".org", "sand" + "box", "shared" + "/"]
    for path in tracked():
        try: text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError: continue  # no text
        lines = [l for l in text.splitlines() if any(w in l.lower() for w in words)]
        allowed = 1 if path == ROOT/".ci"/"run" else 0
        assert len(lines) <= allowed, f"{path.relative_to(ROOT)}: {lines[0][:200]}"


def test_constraints_hold_everywhere():
    "A GPU machine brings a torch with its own triton; a Mac has neither."
    lines = [l for l in (ROOT/"constraints.txt").read_text().splitlines() if not l.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", l) for l in lines)
    assert not [l for l in lines if l.lower().startswith(("triton", "nvidia"))]


def test_workflows_call_make_test():
    flow = yaml.safe_load((ROOT/".github/workflows/test.yml").read_text())
    assert {"run": "make test"} in flow["jobs"]["test"]["steps"]
    assert {m["os"] for m in flow["jobs"]["test"]["strategy"]["matrix"]["include"]} == {"ubuntu-latest", "macos-latest"}


def test_make_says_what_it_can():
    done = make("help")
    targets = re.search(r"\.PHONY: (.*)", (ROOT/"Makefile").read_text())[1].split()
    for target in set(targets) - {"known"}: assert re.search(rf"^make {target} ", done.text, re.M), target


@pytest.mark.parametrize("variable, message", [
    ({"RECIPE": "quikstart"}, "UserError: there is no recipe quikstart; there are: "),
    ({"JOB": "finetun"}, "UserError: there is no job finetun; there are: compare data_curve evaluate finetune "),
    ({"NAME": "../Makefile/run"}, "UserError: cannot write _runs/../Makefile/run; choose another NAME")])
def test_make_refuses_in_one_line(variable, message):
    done = make("run", **variable)
    assert done.returncode != 0 and done.text.startswith(message) and len(done.text.splitlines()) == 2  # the second is make's own


def test_an_old_python_is_refused(tmp_path):
    old = tmp_path/"python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.6"\nexit 1\n'); old.chmod(0o755)
    done = sh("make", "install", f"VENV={tmp_path}/venv", f"PYTHON={old}")
    assert done.returncode != 0 and "UserError: Python 3.11 or newer is needed" in done.text and "Python 3.9.6" in done.text
    assert not (tmp_path/"venv").exists()
