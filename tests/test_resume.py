"A run that is killed, and killed again, ends with the bytes of one that was not."
import json, subprocess, sys

from conftest import ROOT, own_recordings

# one thread each, because two of them run side by side
RUN = """
import os, signal, sys
from whisper_tutorial.training import finetune as ft
from whisper_tutorial.training.recipe import load_recipe
out, data, moment = sys.argv[1:]
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
if moment == "the verdict": ft.finish = die
recipe = load_recipe("quickstart", steps=12, checkpoint_steps=4, where={"accent": ["German", "American"]}, probe={"accent": "Scottish"}, windows="auto",
                     batch_windows=2, torch_threads=1, out_dir=out, language="en", dialect="en-de", gap_s=.2, timestamps=.5, specaugment="basic",
                     augment=["speed", "noise"], bpe_dropout=.1, stochastic_depth=.1, token_noise=.1, interpolate=.9)
ft.finetune(recipe, lambda log: die() if str(log[-1]["step"]) == moment else None)
"""


def end(process):
    said = process.communicate()[1]
    return process.returncode, said


def read(path): return json.loads(path.read_text())


def test_killed_and_continued(tmp_path):
    clips, whole, cut = own_recordings(tmp_path/"clips", ("German", "American"), train=12, validation=4, test=4), tmp_path/"whole", tmp_path/"cut"
    def begin(out, moment="never"): return subprocess.Popen([sys.executable, "-c", RUN, out, clips, moment], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    undisturbed = begin(whole)

    assert end(begin(cut, "6"))[0] == -9
    assert (cut/"checkpoints/checkpoint-4").is_dir() and not (cut/"metrics.json").exists()
    before = read(cut/"manifest.json")["seconds"]["before"]
    half = cut/"checkpoints/checkpoint-8"; half.mkdir()  # as if the machine had died while this one was written
    (half/"model.safetensors").write_bytes((cut/"checkpoints/checkpoint-4/model.safetensors").read_bytes()[:1000])

    assert end(begin(cut, "the verdict"))[0] == -9
    assert (cut/"model").is_dir() and not (cut/"metrics.json").exists()

    code, said = end(begin(cut))
    assert code == 0, said
    code, said = end(undisturbed)
    assert code == 0, said

    for name in ("metrics.json", "metrics.jsonl", "hypotheses.csv", "quarantine.csv", "model/model.safetensors"):
        assert (cut/name).read_bytes() == (whole/name).read_bytes(), name
    assert [json.loads(l)["step"] for l in (cut/"metrics.jsonl").read_text().splitlines()] == list(range(1, 13))
    assert read(cut/"manifest.json")["seconds"].get("before") == before, "the baseline is measured once, and its time is not forgotten"
