"The planner looks at the machine and at the stages as they are."
from types import SimpleNamespace
import re

import pytest, torch
from conftest import make
from whisper_tutorial.data.concatenation import Stage
from whisper_tutorial import UserError
from whisper_tutorial.training import finetune as ft, planner as pl
from whisper_tutorial.training.recipe import load_recipe

STAGES = [dict(share=.7, seconds=10, batch_windows=192), dict(share=.3, seconds=None, batch_windows=8)]


@pytest.mark.parametrize("name,memory,like", [
    ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20e9, "a100-40"), ("NVIDIA GeForce RTX 4090 Laptop GPU", 16e9, "rtx-4090"),
    ("Tesla T4", 15.8e9, "t4")])
def test_a_gpu_has_the_memory_that_it_reports(name, memory, like, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=memory))
    found = pl.find_machine("here")
    assert (found.name, found.memory) == (like, memory)


@pytest.fixture(scope="module")
def uneven(): return load_recipe(model="openai/whisper-small", steps=1000, batch_windows=8, windows=STAGES)


def test_advice_is_for_the_fullest_stage(uneven):
    found = pl.plan(uneven, "t4")
    assert not found.fits
    assert found.advice and all(f"({found.peak_gb:.1f} →" in a for a in found.advice)
    said = pl.advise(uneven, machine="t4")
    assert said.startswith("192 windows of 10 s at a time need about ") and "t4 has 16" in said


def test_out_of_memory_names_the_fullest_stage(uneven, monkeypatch):
    monkeypatch.setattr(ft, "dims_of", lambda config: pl.sizes_of("openai/whisper-small"))
    run = SimpleNamespace(recipe=uneven, model=SimpleNamespace(config=None),
                          windows=SimpleNamespace(stages=[Stage(.7, 10., 192), Stage(.3, 30., 8)]))
    with pytest.raises(UserError, match="out of memory: .*192 windows of 10 s at a time need about "), ft.advising(run): raise MemoryError


def test_the_bill_of_eight_a100_is_said_by_make():
    "1.5 million hours in two stages of windows, against the published three weeks."
    done = make("plan", RECIPE="large-v2-8xa100", MACHINE="a100-80", HOURS=1_500_000)
    assert done.returncode == 0, done.text
    gb, steps, hours = re.search(r"8 × a100-80: ([\d.]+) of 80 GB, fits; ([\d,]+) steps in ([\d,]+) hours", done.text).groups()
    assert 10 < float(gb) < 40 and 14 < float(hours.replace(",", ""))/24 < 28
    assert int(steps.replace(",", ""))*128*30/3600 == pytest.approx(1_500_000, rel=.05)  # dense windows; half as many at 60 s
    rows = [line.split() for line in done.text.splitlines() if re.match(r" *[36]0\.0 ", line)]
    assert [(row[0], row[1]) for row in rows] == [("30.0", "128"), ("60.0", "64")]


def test_a_job_for_slurm_is_printed_by_make():
    done = make("slurm", RECIPE="large-v2-8xa100", MACHINES=2, ARGS="-p gpus 16 -p gradient_accumulation 2")
    assert done.returncode == 0, done.text
    assert done.text.startswith("#!/bin/bash\n#SBATCH") and "--nodes=2\n#SBATCH --ntasks-per-node=8\n" in done.text
    assert done.text.splitlines()[-1].startswith("make run RECIPE=large-v2-8xa100")
