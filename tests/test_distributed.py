"The same step on two processes, with DeepSpeed or without, and the way back when one of them dies."
import json, os, re, signal, subprocess, sys, time
from pathlib import Path

import psutil, pytest, torch
from conftest import ROOT, own_recordings
from safetensors.torch import load_file
from whisper_tutorial import UserError
from whisper_tutorial.training.distributed import failure, launch, slurm_script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed is for Linux")
RUN = """
import json, sys
from whisper_tutorial.training import finetune as ft
from whisper_tutorial.training.recipe import load_recipe
data, out, changes = sys.argv[1:]
ft.finetune(load_recipe(data=f"folder:{data}", language="en", steps=6, checkpoint_steps=2, batch_windows=2, learning_rate=1e-4, device="cpu",
                        windows=[dict(share=2/3, seconds=4, batch_windows=4), dict(share=1/3, seconds=None, batch_windows=2)], out_dir=out,
                        **json.loads(changes)))
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory): return own_recordings(tmp_path_factory.mktemp("own")/"clips", ("German", "Hindi"), train=12, validation=3, test=2)


def begin(clips, out, **changes):
    return subprocess.Popen([sys.executable, "-c", RUN, clips, out, json.dumps(changes)], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(process):
    said = process.communicate()[1]
    logs = sorted(Path(process.args[4]).glob("logs/*"))
    assert process.returncode == 0, "\n".join([said, *(f"{p.name}: {p.read_text(errors='replace')[-3000:]}" for p in logs)])


def log(out): return [json.loads(l) for l in (out/"metrics.jsonl").read_text().splitlines(True) if l.endswith("\n")]


def wait_for(step, out, process):
    while not ((out/"metrics.jsonl").exists() and log(out) and log(out)[-1]["step"] >= step):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(.01)


def same(a, b, rtol=1e-3, atol=1e-5):
    "Loss, gradient norm and validation within 1e-5 at each step; the same weights, as far as Adam lets them."
    for one, other in zip(log(a), log(b), strict=True):
        assert set(one) == set(other)
        for key in one: assert other[key] == pytest.approx(one[key], rel=1e-5), (key, one, other)
    one, other = (load_file(out/"model/model.safetensors") for out in (a, b))
    assert set(one) == set(other)
    for name in one: torch.testing.assert_close(other[name].float(), one[name].float(), rtol=rtol, atol=atol, msg=name)


@pytest.fixture(scope="module")
def alone(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")/"run"
    finish(begin(clips, out, gradient_accumulation=2))
    return out


@pytest.fixture(scope="module")
def two(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("two")/"run"
    finish(begin(clips, out, gpus=2))
    return out


@pytest.mark.parametrize("deepspeed", [None, "zero2", "zero3"])
def test_two_processes_take_the_steps_of_one(clips, alone, two, deepspeed, tmp_path, everything):
    if deepspeed == "zero2" and not everything: pytest.skip("with --all: the stages beside it are tested")
    out = tmp_path/"run" if deepspeed else two
    if deepspeed: finish(begin(clips, out, gpus=2, deepspeed=deepspeed))
    same(alone, out)
    pieces = list((out/"checkpoints/checkpoint-6").rglob("*optim_states.pt"))
    assert len(pieces) == (2 if deepspeed else 0), "DeepSpeed was really on"
    assert (out/"logs/rank-1.txt").exists() and not list((out/"logs").glob("rank-*.json"))
    assert "built" not in (out/"logs/rank-0.txt").read_text(), "nothing is compiled that training does not use"


def test_one_of_two_is_killed(clips, two, tmp_path):
    "And goes on as if nothing had happened."
    out = tmp_path/"run"
    process = begin(clips, out, gpus=2)
    wait_for(3, out, process)
    os.kill(int((out/"logs/rank-1.pid").read_text().split()[0]), signal.SIGKILL)
    said = process.communicate()[1]
    assert process.returncode == 1 and "rank-1 ended without a word" in said, said
    assert not (out/"metrics.json").exists() and (out/"checkpoints/checkpoint-2/whole.json").exists()
    finish(begin(clips, out, gpus=2))
    same(two, out, 1e-5, 1e-6)
    assert (out/"metrics.json").read_bytes() == (two/"metrics.json").read_bytes()


def test_deepspeed_is_told_to_stop_and_goes_on(clips, tmp_path):
    "With the encoder frozen, which DeepSpeed leaves out of its checkpoints; SIGTERM reaches the processes through the one that started them."
    alone, out, ways = tmp_path/"alone", tmp_path/"run", dict(gpus=2, deepspeed="zero1", freeze="encoder", strategy="single")
    finish(begin(clips, alone, gradient_accumulation=2, freeze="encoder", strategy="single", specaugment="basic"))
    process = begin(clips, out, specaugment="basic", **ways)
    wait_for(3, out, process)
    process.terminate()
    said = process.communicate()[1]
    assert process.returncode == 1 and "the run was asked to stop (SIGTERM), and did after step" in said, said
    finish(begin(clips, out, specaugment="basic", **ways))
    same(alone, out)


def test_an_adapter_on_a_short_base_is_shared_out(clips, tmp_path):
    "LoRA beside weights in 8 bits, two processes under ZeRO-2; dropout differs from one process's, so the loss is near, not equal."
    how = dict(adapter="lora", quantize="8bit")
    finish(begin(clips, tmp_path/"alone", gradient_accumulation=2, **how))
    finish(begin(clips, tmp_path/"run", gpus=2, deepspeed="zero2", **how))
    one, two = log(tmp_path/"alone"), log(tmp_path/"run")
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    assert [l["loss"] for l in two] == pytest.approx([l["loss"] for l in one], rel=.01)
    assert len(list((tmp_path/"run/checkpoints/checkpoint-6").rglob("*optim_states.pt"))) == 2, "DeepSpeed was really on"
    one, two, old = (load_file(f/"model.safetensors") for f in (tmp_path/"alone/model", tmp_path/"run/model", ROOT/"data/nano"))
    learnt = [k for k in two if not torch.equal(two[k].float(), old[k].float())]
    assert learnt and all(k.split(".")[-2] in ("q_proj", "v_proj") for k in learnt) and set(one) == set(two)


def test_a_killed_notebook_leaves_no_process_behind(tmp_path):
    "`kill -9` of the one that waits: its ranks would train on, beside those of the next session."
    rank = f"import time; from whisper_tutorial.training.distributed import as_rank\nwith as_rank({str(tmp_path)!r}): time.sleep(300)"
    job = f"import sys; from whisper_tutorial.training.distributed import launch; launch([sys.executable, '-c', {rank!r}], {str(tmp_path)!r})"
    waiting = subprocess.Popen([sys.executable, "-c", job], cwd=ROOT)
    written = tmp_path/"logs/rank-0.pid"
    while not written.exists(): assert waiting.poll() is None; time.sleep(.05)
    process = psutil.Process(int(written.read_text().split()[0]))
    time.sleep(1); assert process.is_running()
    waiting.kill(); waiting.wait()
    psutil.wait_procs([process], timeout=20)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_crash_below_python_is_told(tmp_path):
    rank = f"import os; from whisper_tutorial.training.distributed import as_rank\nwith as_rank({str(tmp_path)!r}): os.abort()"
    with pytest.raises(RuntimeError, match="(?s)rank-0 crashed:\nAborted.*line 2 in <module>"): launch([sys.executable, "-c", rank], tmp_path)


@pytest.mark.parametrize("said, silent", [
    ("[pair.cc:534] Connection closed by peer [127.0.0.1]:4711", True), ("[pair.cc:252] writev [127.0.0.1]:4711: Broken pipe", True),
    ("ncclRemoteError: a network error or a remote process exiting prematurely", True), ("the loss is not a number", False)])
def test_who_was_killed_is_told_from_who_lost_the_other(said, silent, tmp_path):
    for rank in (0, 1): (tmp_path/f"rank-{rank}.pid").write_text("1 here"); (tmp_path/f"rank-{rank}.txt").write_text("")
    (tmp_path/"rank-0.json").write_text(json.dumps(dict(kind="RuntimeError", message=said, traceback=f"Traceback\n{said}")))
    told = str(failure(tmp_path, 1))
    assert ("rank-1 ended without a word" in told) == silent and (f"rank-0 failed:\nTraceback\n{said}" in told) != silent


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_an_interrupted_launch_leaves_no_secret(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "hf_NobodyMaySeeThis")
    said = tmp_path/"logs/launcher.txt"
    def watch():
        if "hf_" in said.read_text(): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        launch([sys.executable, "-c", f"import os, time; print(os.environ['{name}'], flush=True); time.sleep(20)"], tmp_path, watch=watch)
    assert said.read_text() == "***\n"


@pytest.mark.parametrize("args, tasks", [
    ("", 8), ("-p gpus 4 -p gradient_accumulation 8", 4), ("-y '{gpus: 4, gradient_accumulation: 8}'", 4), ("-y 'smoke: true'", 2),
    ("-y 'gpus: 2' -y 'gradient_accumulation: 16'", 2), ("-p gpus 8 -y 'gpus: 4'", 8), ("-p suite None", 8)])
def test_slurm_is_asked_for_as_many_tasks_as_the_run_has_processes(args, tasks):
    script = slurm_script("large-v2-8xa100", args=args)
    assert f"#SBATCH --ntasks-per-node={tasks}\n#SBATCH --gpus-per-node={tasks}\n" in script


@pytest.mark.parametrize("args, message", [
    ("-y 'gpus: 4'", "is not batch_windows 64"), ("-y gpus", "cannot read the values"), ("-y '{'", "cannot read the values"),
    ("-y 'gpus: 4", "cannot read the values"), ("-p gpsu 4", "Did you mean `gpus`?"), ("-y 'gpus: four'", "`gpus` is 'four'")])
def test_slurm_refuses_what_the_run_would(args, message):
    with pytest.raises(UserError, match=re.escape(message)): slurm_script("large-v2-8xa100", args=args)


def test_what_is_frozen_is_not_rounded(clips, tmp_path, everything):
    if not everything: pytest.skip("with --all")
    out = tmp_path/"run"
    finish(begin(clips, out, gpus=2, deepspeed="zero2", precision="bf16", freeze="encoder", smoke=True))
    before, after = (load_file(folder/"model.safetensors") for folder in (ROOT/"data/nano", out/"model"))
    changed = {name.split(".")[1] for name in after if not torch.equal(after[name].float(), before[name].float())}
    assert changed == {"decoder"}


def test_slurm_starts_the_processes(clips, alone, tmp_path, everything):
    "With an `srun` that does what SLURM's does on one machine: a process per task, which learns its number from SLURM's names."
    if not everything: pytest.skip("with --all")
    srun, out = tmp_path/"bin/srun", tmp_path/"run"
    srun.parent.mkdir()
    srun.write_text(f"""#!{sys.executable}
import os, subprocess, sys
words = [w for w in sys.argv[1:] if not w.startswith("--")]
ranks = [subprocess.Popen(words, env=os.environ | dict(SLURM_PROCID=str(i), SLURM_LOCALID=str(i))) for i in range(int(os.environ["SLURM_NTASKS"]))]
sys.exit(max(p.wait() for p in ranks))
""")
    srun.chmod(0o755)
    slurm = os.environ | dict(SLURM_JOB_ID="1", SLURM_NTASKS="2", PATH=f"{srun.parent}:{os.environ['PATH']}")
    process = subprocess.Popen([sys.executable, "-c", RUN, clips, out, json.dumps(dict(gpus=2))], cwd=ROOT, env=slurm, stderr=subprocess.PIPE, text=True)
    finish(process)
    same(alone, out)
