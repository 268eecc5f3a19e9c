"The package as others get it: a wheel in an empty environment, far from the checkout."
import shutil, subprocess, sys, sysconfig

from conftest import ROOT, sh

USE = """
from pathlib import Path
import whisper_tutorial
from whisper_tutorial.core import asset, resolve
from whisper_tutorial.data.corpus import load_corpus
from whisper_tutorial.evaluation.transcribe import transcribe
from whisper_tutorial.training.finetune import load_model
package = Path(whisper_tutorial.__file__).parent
assert asset("accents") == package/"_assets"/"accents", asset("accents")
assert asset("nano") == package/"_assets"/"nano", asset("nano")
corpus = load_corpus("common_voice:data/accents")
model, processor = load_model("data/nano")
texts = transcribe(model, corpus.select(range(2)), processor.tokenizer, "en")
print(package, len(corpus), model.num_parameters(), texts)
"""


def test_a_wheel_brings_corpus_and_model(tmp_path):
    source = tmp_path/"source"
    for name in ("whisper_tutorial", "data"): shutil.copytree(ROOT/name, source/name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"): shutil.copy(ROOT/name, source)
    built = sh(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, cwd=source)
    assert built.returncode == 0, built.text
    wheel, = tmp_path.glob("*.whl")

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path/"env"], check=True)
    python = tmp_path/"env/bin/python"
    installed = sh(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    assert installed.returncode == 0, installed.text
    # the dependencies are those of this environment; a .pth in it, such as an editable install's, is not followed
    site, = (tmp_path/"env/lib").glob("python*/site-packages")
    (site/"dependencies.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))

    (tmp_path/"elsewhere").mkdir()
    used = sh(python, "-c", USE, cwd=tmp_path/"elsewhere")
    assert used.returncode == 0, used.text
    assert str(site) in used.text
