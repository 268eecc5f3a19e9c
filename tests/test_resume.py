"A run that is killed, and killed again, ends with the bytes of one that was not."
import json, subprocess, sys, time

from conftest import BIN, ROOT, make, own_recordings

# one thread each, because two of them run side by side
RUN = """
import os, signal, sys
from whisper_tutorial.training import finetune as ft
from whisper_tutorial.training.recipe import load_recipe
out, data, moment = sys.argv[1:]
def send(which): os.kill(os.getpid(), which)
if moment == "the verdict": ft.finish = lambda *_: send(signal.SIGKILL)
class Disturbed(ft.Progress):
    def __init__(self, *args):
        super().__init__(*args)
        self.every = 5  # a line is an average, and a run may end within it
    def on_step_end(self, args, state, control, **kw):
        super().on_step_end(args, state, control, **kw)
        if moment == f"SIGKILL {state.global_step}": send(signal.SIGKILL)
        if moment == f"SIGTERM {state.global_step}": send(signal.SIGTERM)
ft.Progress = Disturbed
recipe = load_recipe("quickstart", steps=12, checkpoint_steps=4, where={"accent": ["German", "American"]}, probe={"accent": "Scottish"}, windows="auto",
                     batch_windows=2, torch_threads=1, out_dir=out, language="en", dialect="en-de", gap_s=.2, timestamps=.5, specaugment="basic",
                     augment=["speed", "noise"], bpe_dropout=.1, stochastic_depth=.1, token_noise=.1, interpolate=.9)
ft.finetune(recipe)
"""


def end(process):
    said = process.communicate()[1]
    return process.returncode, said


def read(path): return json.loads(path.read_text())


def test_killed_and_continued(tmp_path):
    clips, whole, cut = own_recordings(tmp_path/"clips", ("German", "American"), train=12, validation=4, test=4), tmp_path/"whole", tmp_path/"cut"
    def begin(out, moment="never"): return subprocess.Popen([sys.executable, "-c", RUN, out, clips, moment], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    undisturbed = begin(whole)

    assert end(begin(cut, "SIGKILL 6"))[0] == -9
    assert (cut/"checkpoints/checkpoint-4").is_dir() and not (cut/"metrics.json").exists()
    before = read(cut/"manifest.json")["seconds"]["before"]
    half = cut/"checkpoints/checkpoint-8"; half.mkdir()  # as if the machine had died while this one was written
    (half/"model.safetensors").write_bytes((cut/"checkpoints/checkpoint-4/model.safetensors").read_bytes()[:1000])

    code, said = end(begin(cut, "SIGTERM 6"))  # while the next step is made, which is finished
    assert code == 1 and "did after step 7 with a checkpoint; the same command goes on" in said, said
    assert (cut/"checkpoints/checkpoint-7/whole.json").exists()

    assert end(begin(cut, "the verdict"))[0] == -9
    assert (cut/"model").is_dir() and not (cut/"metrics.json").exists()

    code, said = end(begin(cut))
    assert code == 0, said
    code, said = end(undisturbed)
    assert code == 0, said

    for name in ("metrics.json", "metrics.jsonl", "hypotheses.csv", "quarantine.csv", "model/model.safetensors"):
        assert (cut/name).read_bytes() == (whole/name).read_bytes(), name
    steps = [json.loads(l)["step"] for l in (cut/"metrics.jsonl").read_text().splitlines()]
    assert steps[0] == 1 and steps[-1] == 12 and {5, 10} < set(steps)
    assert read(cut/"manifest.json")["seconds"].get("before") == before, "the baseline is measured once, and its time is not forgotten"


def test_a_terminated_job_goes_on(tmp_path):
    "SIGTERM to make, as a cluster sends it, ends the job with a checkpoint; the same command finishes it."
    clips, out = own_recordings(tmp_path/"clips", ("German",), train=6, validation=2, test=2), tmp_path/"run"
    args = f"-p data folder:{clips} -p steps 60 -p checkpoint_steps 60 -y 'probe: null' -y 'windows: [{{share: 0.95, seconds: 4}}, {{share: 0.05, seconds: null}}]'"
    command = ["make", "--no-print-directory", "-o", f"{BIN.parent}/installed", "run", f"VENV={BIN.parent}", f"OUT={out}", f"ARGS={args}"]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not ((out/"metrics.jsonl").exists() and len((out/"metrics.jsonl").read_text().splitlines()) > 3):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(.05)
    job.terminate()
    said = job.communicate(timeout=60)[0]
    assert job.returncode and "UserError: the run was asked to stop (SIGTERM), and did after step" in said, said
    step, = [int(p.name.split("-")[1]) for p in (out/"checkpoints").glob("checkpoint-*")]
    assert 3 < step < 60
    done = make("run", OUT=out, ARGS=args)
    assert done.returncode == 0 and (out/"metrics.json").exists(), done.text
