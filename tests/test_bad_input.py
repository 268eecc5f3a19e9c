"What a user can get wrong: one clear message each, and an exit code that is not 0. Bad clips are counted, and stop nothing."
import csv, json, re, shutil

import numpy as np, pytest, soundfile
from conftest import BIN, ROOT, make, own_recordings, refused, sh
from safetensors.torch import load_file, save_file
from whisper_tutorial import UserError
from whisper_tutorial.core import open_run
from whisper_tutorial.training import finetune as ft
from whisper_tutorial.training.recipe import load_recipe

SMOKE = "-y 'smoke: true'"


@pytest.mark.parametrize("args, message", [
    ("-p lerning_rate 1e-4", "there is no parameter `lerning_rate`. Did you mean `learning_rate`?"),
    ("-p steps many", "`steps` is 'many': "),
    ("-y 'stesp: 5' -y 'seeed: 1' -p learning_rate fast", "Did you mean `steps`?"),
    ("-p data folder:no/such/folder", "no/such/folder` does not exist")])
def test_a_run_is_refused(args, message, tmp_path):
    said = refused(make("run", OUT=tmp_path/"run", ARGS=args))
    assert message in said, said
    assert not (tmp_path/"run"/"metrics.json").exists()


def test_all_mistakes_are_said_at_once(tmp_path):
    with pytest.raises(UserError) as e: load_recipe(stesp=5, learning_rate="fast", task="sing")
    for part in ("Did you mean `steps`?", "`learning_rate` is 'fast'", "`task` is 'sing'"): assert part in str(e.value)


def test_a_misspelt_key_in_a_recipe(tmp_path):
    recipe = tmp_path/"mine.yaml"
    recipe.write_text("steps: 3\nbatch_window: 8\n")
    assert "Did you mean `batch_windows`?" in refused(make("run", OUT=tmp_path/"run", ARGS=f"-f {recipe}"))
    with pytest.raises(UserError, match="Did you mean `batch_windows`"): load_recipe(recipe)


@pytest.mark.parametrize("job", ["quickstart.ipynb", "runs/pretrain.ipynb", "runs/make_accents.ipynb"])
def test_every_job_refuses_an_unknown_name(job, tmp_path):
    done = sh(BIN/"papermill", "--no-progress-bar", "--cwd", "nbs", f"nbs/{job}", tmp_path/"out.ipynb", "-p", "seeed", "1", "-p", "out_dir", tmp_path/"run",
              JUPYTER_PREFER_ENV_PATH="1")
    assert done.returncode != 0 and done.text.splitlines()[-1].startswith("UserError: there is no parameter `seeed`. Did you mean `seed`?"), done.text
    assert not (tmp_path/"run").exists()


def test_papermill_hands_values_on_as_text(tmp_path):
    "YAML's 5e-5 and `-p smoke false` arrive as strings; both mean what they say."
    recipe = load_recipe(steps=1, learning_rate="5e-5", smoke="false")
    assert recipe.learning_rate == 5e-5 and recipe.smoke is False


def start(tmp_path, **values): return ft.start(load_recipe("quickstart", **{"out_dir": str(tmp_path/"run")} | values))


def empty(tmp_path): (tmp_path/"empty").mkdir(exist_ok=True); (tmp_path/"empty"/"notes.txt").write_text("nothing"); return tmp_path/"empty"


def no_weights(tmp_path):
    shutil.copytree(ROOT/"data"/"nano", tmp_path/"nano", ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    return tmp_path/"nano"


def a_file(tmp_path): (tmp_path/"file").write_text(""); return tmp_path/"file"


def weights_alone(tmp_path):
    (tmp_path/"weights").mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"): shutil.copy(ROOT/"data/nano"/name, tmp_path/"weights")
    return tmp_path/"weights"


def one_other_language(tmp_path):
    "Only a validation clip has it: training would find out at its end."
    if not (tmp_path/"mixed").exists():
        lines = (own_recordings(tmp_path/"mixed", train=4, validation=2, test=2)/"metadata.csv").read_text().splitlines()
        said = [l + (",xx" if ",validation," in l else ",language" if i == 0 else ",en") for i, l in enumerate(lines)]
        (tmp_path/"mixed"/"metadata.csv").write_text("\n".join(said) + "\n")
    return tmp_path/"mixed"


@pytest.mark.parametrize("values, message", [
    (lambda t: dict(data=f"folder:{t}/nowhere"), "does not exist"),
    (lambda t: dict(data=f"folder:{empty(t)}"), "holds no audio"),
    (lambda t: dict(data="foldr:data/accents"), "Did you mean `folder`?"),
    (lambda t: dict(model=str(no_weights(t))), "holds no weights"),
    (lambda t: dict(model=str(t/"nowhere")), "no Whisper at"),
    (lambda t: dict(model=str(weights_alone(t))), "has weights and no processor"),
    (lambda t: dict(out_dir=f"{a_file(t)}/run"), "choose another `out_dir`"),
    (lambda t: dict(where={"acent": "German"}), "Did you mean `accent`?"),
    (lambda t: dict(where={"accent": "Germn"}), "German"),
    (lambda t: dict(where={"split": "test"}), "the train split is empty"),
    (lambda t: dict(language="xx"), "'xx'"),
    (lambda t: dict(data=f"folder:{one_other_language(t)}", language=None), "knows no language 'xx'"),
    (lambda t: dict(dialect="en"), "is no dialect"),
    (lambda t: dict(language="en", dialect="hi-in"), "the dialect 'hi-in' cannot stand behind <|en|>"),
    (lambda t: dict(language="en", language_like="klingon"), "knows no language 'klingon'"),
    (lambda t: dict(previous_text=.5), "`previous_text` is 0.5, but no clip")], ids=lambda v: "" if callable(v) else v)
def test_start_refuses(values, message, tmp_path):
    "Before anything is paid. And what was refused has not begun: the corrected command is not taken for another run."
    with pytest.raises(UserError) as e: start(tmp_path, **values(tmp_path))
    assert message in str(e.value), str(e.value)
    if "out_dir" not in values(tmp_path): assert not start(tmp_path).continued


@pytest.mark.parametrize("values, message", [
    (dict(data="foldr:data/accents"), "Did you mean `folder`?"), (dict(model="data/nnao"), "data/nnao"), (dict(model="/no/such/folder"), "/no/such/folder")])
def test_smoke_hides_no_mistake(values, message, tmp_path):
    "Only what needs a network is replaced."
    with pytest.raises(UserError, match=re.escape(message)): start(tmp_path, smoke=True, **values)


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("values, message", [
    *((dict(windows=[dict(share=1, seconds=None, batch_windows=n)]), f"`batch_windows` of a stage is a whole number from 1, got {n!r}") for n in (None, "16", 0, 2.5, True)),
    (dict(model="new", n_state=9, n_head=3), "`n_state` 9 is odd, and each sine of the positions has its cosine; make it even")], ids=str)
def test_smoke_says_what_the_whole_run_would(values, message, smoke):
    with pytest.raises(UserError, match=re.escape(message)): load_recipe(steps=1, smoke=smoke, **values)


def test_smoke_runs_on_this_machine_only():
    whole = dict(steps=1, gpus=16, batch_windows=16, deepspeed="zero1", hostfile="hosts")
    assert load_recipe(**whole).hostfile == "hosts" and load_recipe(smoke=True, **whole).hostfile is None


def test_an_unfinished_run_goes_on_from_its_own_model_only(tmp_path):
    "Other weights may have the old name. A run from before the manifest knew its model goes on."
    model, values = tmp_path/"model", dict(model=str(tmp_path/"model"))
    shutil.copytree(ROOT/"data/nano", model)
    run, whole = start(tmp_path, **values), (model/"model.safetensors").read_bytes()
    had = json.loads((run.out/"manifest.json").read_text())
    save_file({k: 1.5*w for k, w in load_file(model/"model.safetensors").items()}, model/"model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"model_fingerprint: '{had['model_fingerprint']}' then, '.*' now.*old values, data and model"): start(tmp_path, **values)
    (model/"model.safetensors").write_bytes(whole)
    assert start(tmp_path, **values).continued
    (run.out/"manifest.json").write_text(json.dumps({k: v for k, v in had.items() if k != "model_fingerprint"}))
    assert start(tmp_path, **values).continued
    assert json.loads((run.out/"manifest.json").read_text())["model_fingerprint"] == had["model_fingerprint"]


def test_a_run_never_deletes_what_it_is_made_of(tmp_path):
    "A finished run's model or a prepared corpus, used under the same NAME; and a folder that is the user's."
    run = tmp_path/"run"
    shutil.copytree(ROOT/"data/nano", run/"model"); own_recordings(run/"corpus", train=4, validation=2, test=2)
    (run/"manifest.json").write_text('{"finished": "2026-01-01"}')
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for values in (dict(model=str(run/"model")), dict(data=f"folder:{run/'corpus'}"), dict(data=[f"folder:{run/'corpus'}", "common_voice:data/accents"])):
        with pytest.raises(UserError, match="a run replaces what the run before has left there; give this one another NAME"): start(tmp_path, **values)
    (tmp_path/"suite.yaml").write_text(f"benchmarks: [{{name: mine, source: 'folder:{run}/corpus', language: en}}]")
    with pytest.raises(UserError, match="a run replaces what"): start(tmp_path, suite=str(tmp_path/"suite.yaml"))
    for key in ("recordings", "second"):
        with pytest.raises(UserError, match="a run replaces what"): open_run(run, {key: str(run/"corpus")}, "abc")
    (run/"manifest.json").unlink(); del before[run/"manifest.json"]
    with pytest.raises(UserError, match="is no run .*may be yours"): start(tmp_path)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert not start(tmp_path/"another", model=str(run/"model")).continued


def test_what_differs_in_the_data_is_said(tmp_path):
    own_recordings(tmp_path/"clips", train=4, validation=2, test=2)
    values, table = dict(data=f"folder:{tmp_path/'clips'}", where=None, language="en"), tmp_path/"clips/metadata.csv"
    whole = table.read_text(); start(tmp_path, **values)
    *kept, last = whole.splitlines()
    gone = tmp_path/"clips"/last.split(",")[0]; sound = gone.read_bytes(); gone.unlink()
    table.write_text("\n".join(kept) + "\n")
    with pytest.raises(UserError, match="data: clips: 8 then, 7 now.* data: transcripts: "): start(tmp_path, **values)
    gone.write_bytes(sound); table.write_text(whole.replace("German", "Bavarian"))
    with pytest.raises(UserError, match=r"of something else \(data_fingerprint: ") as e: start(tmp_path, **values)
    assert "transcripts" not in str(e.value) and "clips:" not in str(e.value)


@pytest.mark.parametrize("values, message", [
    (dict(windows=[dict(share=.7, secnds=4), dict(share=.3, seconds=None)]), "Did you mean `seconds`?"),
    (dict(windows=[dict(share=.7, seconds=4), dict(share=.2, seconds=None)]), "sum to 0.9"),
    (dict(probe={"acent": "German"}), "Did you mean `accent`?")])
def test_a_slip_is_found_before_any_sound_is_read(values, message, tmp_path, monkeypatch):
    def read(*_): raise AssertionError("the clips are read")
    monkeypatch.setattr(ft, "fingerprint", read)
    with pytest.raises(UserError) as e: start(tmp_path, **values)
    assert message in str(e.value)


def test_an_unfinished_run_of_something_else_is_kept(tmp_path):
    run = start(tmp_path)
    before = (run.out/"recipe.yaml").read_bytes()
    with pytest.raises(UserError, match="seed: 0 then, 1 now"): start(tmp_path, seed=1)
    with pytest.raises(UserError, match="data_fingerprint"): start(tmp_path, where={"split": ["train", "test"], "accent": ["German", "American"]})
    assert (run.out/"recipe.yaml").read_bytes() == before
    assert start(tmp_path).continued


@pytest.fixture
def folder(tmp_path):
    "Twenty good clips, and one of each kind that cannot be trained on."
    made = own_recordings(tmp_path/"clips", train=12, test=8)
    (made/"broken.mp3").write_bytes(b"this is not sound"*99)
    soundfile.write(made/"long.wav", np.random.default_rng(0).normal(0, .01, 31*16_000), 16_000)
    shutil.copy(next(made.glob("common_voice*.mp3")), made/"silent.mp3")
    with open(made/"metadata.csv", "a") as f:
        for name, text, split in (("broken.mp3", "Hello.", "train"), ("long.wav", "Hello.", "train"), ("silent.mp3", "", "train"), ("gone.wav", "Hello.", "test")):
            f.write(f"{name},{text},{split},anna,German\n")
    return made


def test_bad_clips_are_counted_in_a_run_that_succeeds(folder, tmp_path):
    done = make("run", OUT=tmp_path/"run", ARGS=f"{SMOKE} -p data folder:{folder} -y 'probe: null'")
    assert done.returncode == 0, done.text
    table = list(csv.DictReader((tmp_path/"run"/"quarantine.csv").open()))
    assert {r["id"]: r["reason"].split(":")[0] for r in table} == {
        "broken.mp3": "cannot be decoded", "long.wav": "longer than the window", "silent.mp3": "empty transcript", "gone.wav": "file not found"}
    clips = json.loads((tmp_path/"run"/"manifest.json").read_text())["clips"]
    assert clips["quarantined"] == 4
    assert "set aside: 4 clips" in done.text
    assert "longer than the window" in (tmp_path/"run"/"report.html").read_text()


def test_a_corpus_of_bad_clips_only(folder, tmp_path):
    for clip in folder.glob("common_voice*.mp3"): clip.unlink()
    with pytest.raises(UserError, match="all 24 clips are quarantined"): start(tmp_path, data=f"folder:{folder}", probe=None)
