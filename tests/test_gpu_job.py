"The job that measures a GPU, at smoke size on whatever is here."
import json

from conftest import make


def test_every_variant_is_a_row(tmp_path):
    done = make("gpu", OUT=tmp_path/"gpu", ARGS="-y 'smoke: true'")
    assert done.returncode == 0, done.text
    found = json.loads((tmp_path/"gpu"/"gpu.json").read_text())
    assert {"date", "hardware", "versions", "model", "product_flop_s", "rows"} <= set(found)
    rows = {r["what"]: r for r in found["rows"]}
    assert {"eager attention", "SDPA", "SDPA, loss in pieces", "SDPA, checkpointing", "DeepSpeed ZeRO-1, SDPA", "DeepSpeed ZeRO-2, SDPA"} <= set(rows)
    for name in ("eager attention", "SDPA", "SDPA, loss in pieces", "SDPA, checkpointing"):
        assert rows[name]["status"] == "measured" and rows[name]["s_per_step"] > 0 and rows[name]["of_reached_peak"] > 0, rows[name]
    assert (tmp_path/"gpu"/"report.html").exists()


def test_without_a_gpu_it_says_so(tmp_path):
    import torch
    if torch.cuda.is_available(): return
    done = make("gpu", OUT=tmp_path/"gpu")
    assert done.returncode != 0 and "UserError: this job measures a GPU" in done.text, done.text
