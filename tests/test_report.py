"The report: what it says, what it lets through, how large it gets; and the page itself, opened and clicked in a browser."
import csv, json, os, re, shutil, sys, time
from pathlib import Path

import numpy as np, pytest, soundfile, yaml
from conftest import ROOT, sh
from whisper_tutorial import UserError
from whisper_tutorial.core import write_json
from whisper_tutorial.data.corpus import load_corpus, make_corpus, select
from whisper_tutorial.evaluation import report
from whisper_tutorial.evaluation.metrics import forgetting, score, score_groups

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">'\"&"


def write_run(folder, rows, language="en", before=True, **recipe):
    "A finished run's folder, from rows of hypotheses."
    import pandas as pd
    folder.mkdir(parents=True)
    table = pd.DataFrame(rows)
    def scores(part): return {s: score(part["reference"], part[s], language, part["speaker"]) if s == "after" or before else
                              dict.fromkeys(score(["a"], ["a"])) for s in ("before", "after")}
    test, probe = table[table["set"] == "test"], table[table["set"] == "probe"]
    groups = score_groups(test, "accent", language, ("before", "after") if before else ("after",)) if test["accent"].any() else {}
    train = dict(steps=100, audio_s=600., fill=.9, final_loss=.4) if before else None
    write_json(folder/"metrics.json", scores(test) | dict(by_group=dict(accent=groups), probe=scores(probe) if len(probe) else None,
                                                      forgetting=forgetting(table, language) if before else None, train=train))
    table.to_csv(folder/"hypotheses.csv", index=False)
    log = [dict(step=s, loss=.3 + 3/(1 + s/8), grad_norm=1., learning_rate=1e-3) for s in range(1, 101, 5)]
    (folder/"metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) if before else "")
    (folder/"recipe.yaml").write_text(yaml.safe_dump(dict(language=language) | recipe))
    write_json(folder/"manifest.json", dict(commit="0123abc", seconds=dict(train=60., all=80.), clips=dict(train=10, test=len(test))))
    (folder/"quarantine.csv").write_text("id,reason,split\na,no transcript,train\n")
    return folder


def rows_of(corpus, n_probe=6):
    "Clip by clip: before, the first half of the words is lost; after, the last word of every third clip, and one loops."
    found = []
    for i, row in enumerate(corpus):
        words = row["text"].split()
        after = " ".join(words[:-1] if i % 3 == 0 else words) + (" thank you"*12 if i == 14 else "")
        found.append(dict(id=row["id"], set="probe" if i < n_probe else "test", speaker=row["speaker"], accent=row["accent"],
                          reference=row["text"], before=" ".join(words[len(words)//2:]), after=after if i != 9 else words[0]))
    return found


@pytest.fixture(scope="module")
def clips(): return select(load_corpus("common_voice:data/accents"), {"split": "test"}).select(range(60))


@pytest.fixture(scope="module")
def run(tmp_path_factory, clips):
    "A run on real clips, whose recipe names them."
    folder = write_run(tmp_path_factory.mktemp("report")/"mine", rows_of(clips), data="common_voice:data/accents")
    report.write_report(folder)
    return folder


def page_of(folder, *args, **kwargs): return report.write_report(folder, *args, **kwargs).read_text(encoding="utf-8")


def plain(page): return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S))).replace("\u00a0", " ")


def test_everything_is_there(run):
    page = (run/"report.html").read_text(encoding="utf-8")
    text = plain(page)
    for title in ("Before and after", "For whom", "Which errors", "Which words", "What is invented", "Which clips", "Most gained", "Most wrong still",
                  "Hallucinated", "How it learned", "What was used", "Where it comes from", "duration"): assert title in text, title
    assert "The word error rate fell from" in text and "On the same clips the difference is −" in text and "more than chance" in text
    assert "no transcript" in text and "0123abc" in text and "common_voice:data/accents" in text
    assert page.count("<audio") == page.count('class="mel"') > 10
    assert re.search(r"(\d+) of \1 of these clips carry their sound", text)
    assert "1 of 54" in text  # the loop


def test_error_kinds_add_up_to_the_rate(run):
    found = report.study(report.read_run(run))
    for system in ("before", "after"):
        counts = found["counts"][system][found["test"]]
        assert counts[:, 1:].sum()/counts[:, :3].sum() == pytest.approx(found["metrics"][system]["wer_norm"])
    assert found["counts"]["before"][:, 2].sum() > 0


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    first = (run/"report.html").read_bytes()
    code = f"from whisper_tutorial.evaluation.report import write_report; write_report({str(run)!r})"
    done = sh(sys.executable, "-c", code, PYTHONHASHSEED="7", TZ="Asia/Tokyo", LC_ALL="C")
    assert done.returncode == 0, done.text
    assert (run/"report.html").read_bytes() == first


def test_nothing_outside_is_named(run):
    page = (run/"report.html").read_text(encoding="utf-8")
    own = page.replace("http://www.w3.org", "").replace("url(#", "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|<link|<iframe", re.sub(r'base64,[^"]*', "", own))
    assert page.count("<script") == 1 and "default-src 'none'" in page


def test_what_comes_from_data_is_escaped(tmp_path, clips):
    rows = rows_of(clips.select(range(20)), n_probe=0)
    rows[0] |= dict(reference=f"{EVIL} said", before=f"heard {EVIL}", after=EVIL)
    for row in rows[:8]: row["speaker"] = row["accent"] = EVIL
    rows[1] |= dict(id=f"clips/{EVIL}.mp3")
    run = write_run(tmp_path/"<b>run", rows, data=f"folder:{EVIL}", note=EVIL)
    (run/"quarantine.csv").write_text("id,reason\n" + f'"{EVIL.replace(chr(34), chr(34)*2)}","{EVIL.replace(chr(34), chr(34)*2)}: x"\n')
    manifest = json.loads((run/"manifest.json").read_text())
    write_json(run/"manifest.json", manifest | {EVIL: EVIL})
    page = page_of(run)
    assert page.count("<script") == 1 and "<img" not in page and "<b>" not in page and "&lt;script&gt;" in page
    page = page_of(run, clips)  # with sound
    assert page.count("<script") == 1 and page.count("<img") == page.count('<img src="data:image/jpeg;base64,') > 0


def noise(n, seconds, **columns):
    "A corpus of noises, with the bytes of WAV files."
    import io
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        file = io.BytesIO(); soundfile.write(file, .2*rng.standard_normal(int(seconds*16_000)), 16_000, format="WAV")
        rows.append(dict(id=f"n{i}", audio=dict(path=None, bytes=file.getvalue()), text=f"word {i} is said here", duration_s=seconds, **columns))
    return make_corpus(rows, "noise")


@pytest.mark.parametrize("seconds", [28, 2])
def test_the_page_stays_small(tmp_path, seconds):
    corpus = noise(40, seconds)
    rows = [dict(id=r["id"], set="test", speaker=None, accent=None, reference=r["text"], before="", after=f"{'nothing like it ' * (1 + i % 7)}")
            for i, r in enumerate(corpus)]
    rows[0]["after"] = "again and again " * 10_000
    path = report.write_report(write_run(tmp_path/"run", rows), corpus)
    text = plain(path.read_text())
    assert path.stat().st_size < 3e6
    heard, of = map(int, re.search(r"(\d+) of (\d+) of these clips carry their sound", text).groups())
    assert 0 < heard <= report.MOST_SOUNDS and ("were left out to keep the page small" in text) == (heard < of)
    assert "(30000 words)" in text


def test_where_the_sound_is_not(tmp_path, clips):
    rows = rows_of(clips)
    away = page_of(write_run(tmp_path/"away", rows, data="hub:mozilla/common_voice:sw"))
    assert "`hub:mozilla/common_voice:sw` is not on this machine" in plain(away) and "<audio" not in away
    gone = page_of(write_run(tmp_path/"gone", rows, data=f"folder:{tmp_path}/nowhere"))
    assert "is not on this machine" in gone and "<audio" not in gone
    (tmp_path/"empty").mkdir()
    empty = page_of(write_run(tmp_path/"bad", rows, data=f"folder:{tmp_path}/empty"))
    assert "There is no sound in this page" in empty
    nothing = page_of(write_run(tmp_path/"none", rows))
    assert "the recipe names no data" in nothing


def test_sound_that_is_another_now_is_not_played(tmp_path):
    corpus = noise(6, 1.)
    rows = [dict(id=r["id"], set="test", speaker=None, accent=None, reference=r["text"].upper(), before="", after="x") for r in corpus]
    rows[0]["reference"] = "what was said before the corpus changed"
    page = page_of(write_run(tmp_path/"run", rows), corpus)
    assert page.count("<audio") == 5 and "1 of 6 clips are not in the corpus as they were" in plain(page)


def test_a_clip_that_cannot_be_decoded_is_counted(tmp_path):
    corpus = noise(3, 1.)
    broken = make_corpus([dict(row, audio=dict(path=None, bytes=b"no sound") if i == 1 else row["audio"]) for i, row in enumerate(corpus)], "noise")
    rows = [dict(id=r["id"], set="test", speaker=None, accent=None, reference=r["text"], before="", after="x") for r in corpus]
    page = page_of(write_run(tmp_path/"run", rows), broken)
    assert page.count("<audio") == 2 and "1 cannot be decoded any more" in plain(page)


def test_a_run_that_only_measured(tmp_path, clips):
    "What the job evaluate leaves: before is null, and there is no log."
    rows = [row | dict(before="") for row in rows_of(clips)]
    page = page_of(write_run(tmp_path/"run", rows, before=False), clips)
    text = plain(page)
    assert "before, it was not measured" in text and "The rate's 95 % interval is" in text
    assert "Most wrong" in text and "Most gained" not in text and "How it learned" not in text and "→" not in text
    assert page.count("<audio") > 3 and "Hallucinated" in text


def test_a_log_that_breaks_off_loses_its_last_line_only(tmp_path, clips):
    run = write_run(tmp_path/"run", rows_of(clips.select(range(12)), 0))
    whole = report.read_run(run)["log"]
    with open(run/"metrics.jsonl", "ab") as file: file.write('{"step": 101, "note": "ü'.encode()[:-1])
    assert report.read_run(run)["log"] == whole and len(whole) == 20
    assert "How it learned" in plain(page_of(run))
    (run/"metrics.jsonl").unlink()
    assert report.read_run(run)["log"] == []


def test_no_interval_is_promised_where_there_is_none(tmp_path, clips):
    rows = rows_of(clips.select(range(12)), 0)
    some, one = write_run(tmp_path/"some", rows), write_run(tmp_path/"one", rows[:1])
    assert "Beneath a rate its 95 % interval, over 12 clips" in plain(page_of(some)) and "after: WER, its 95 % interval" in plain(page_of(some))
    assert "95 % intervals over 12 clips" in report.result_table(some)
    assert "its 95 % interval" not in plain(page_of(one)) and "intervals" not in report.result_table(one)
    assert "1 clips. Normalised:" in plain(page_of(one)), "nothing else is lost"
    bare = json.loads((some/"metrics.json").read_text())
    for scores in (bare["before"], bare["after"]): scores |= {k: None for k in scores if k.endswith("_ci95")}
    write_json(some/"metrics.json", bare | dict(by_group={}, probe=None))
    assert "its 95 % interval" not in plain(page_of(some)) and "intervals" not in report.result_table(some)


def test_nothing_is_in_the_page_that_nothing_reads(run):
    assert "data-v" not in (run/"report.html").read_text(encoding="utf-8")


def test_each_invented_sentence_is_a_clip_to_look_at(tmp_path):
    "All of those in which nobody speaks have the same words: none."
    said = [dict(id=f"s{i}", set="test", speaker=f"v{i}", accent=None, reference="call anna now", before="call anna now", after="call anna now") for i in range(4)]
    rows = said + [dict(id=str(i), set="test", speaker=f"v{i}", accent=None, reference="", before="", after="thank you "*(i + 2)) for i in range(4)]
    chosen = report.choose_clips(report.study(report.read_run(write_run(tmp_path/"run", rows))))
    assert [row["id"] for row in chosen["Hallucinated"]] == ["3", "2", "1", "0"]


@pytest.mark.parametrize("before", [True, False])
def test_a_translation_is_judged_by_its_own_measures(tmp_path, clips, before):
    from whisper_tutorial.evaluation.metrics import translation_score
    rows = rows_of(clips.select(range(12)), 0)
    run = write_run(tmp_path/"run", rows, before=before, task="translate")
    metrics = json.loads((run/"metrics.json").read_text())
    found = translation_score([r["reference"] for r in rows], [r["after"] for r in rows], [r["speaker"] for r in rows])
    metrics["after"] |= found
    write_json(run/"metrics.json", metrics)
    low, high = found["bleu_ci95"]
    said = report.verdict(report.read_run(run)["metrics"])
    assert f"BLEU is {found['bleu']:.1f} (95 %: {low:.1f} to {high:.1f}) and chrF is {found['chrf']:.1f} (95 %: " in said[0]
    assert said[0] in plain(page_of(run))
    if before:
        metrics["before"] |= translation_score([r["reference"] for r in rows], [r["before"] for r in rows], [r["speaker"] for r in rows])
        write_json(run/"metrics.json", metrics)
        text, studied = plain(page_of(run)), report.study(report.read_run(run))
        test = studied["paired"]["chrf"]
        said = report.verdict(metrics, studied["paired"])
        assert test["difference"] == pytest.approx(metrics["after"]["chrf"] - metrics["before"]["chrf"])
        assert f"BLEU rose from {metrics['before']['bleu']:.1f} to {found['bleu']:.1f} and chrF rose from" in said[0] and said[0].startswith("BLEU")
        assert "On the same clips chrF differs by +" in said[1] and "word error rate" in said[2] and said[0] in text and said[2] in text
        assert [line.split()[0] for line in report.result_table(run).splitlines()][5:7] == ["BLEU", "chrF"]
        assert f"{metrics['before']['chrf']:.1f}" in text and f"{found['chrf']:.1f}" in report.result_table(run)
    for key in list(found):
        if "bleu" in key or "chrf" in key:
            for side in ("before", "after"): metrics[side].pop(key, None)
    assert "BLEU" not in " ".join(report.verdict(metrics))


@pytest.mark.parametrize("rows", [
    [dict(id="1", set="test", speaker=None, accent=None, reference="one clip", before="", after="one clip")],
    [dict(id=str(i), set="test", speaker="a", accent=None, reference="one clip", before="one clip", after="one clip") for i in range(3)],
    [dict(id="1", set="test", speaker=None, accent=None, reference="one clip", before="x", after=""),
     dict(id="2", set="test", speaker=None, accent=None, reference="", before="x", after="words out of nothing at all")]])
def test_small_and_perfect_runs_have_a_page(tmp_path, rows):
    text = plain(page_of(write_run(tmp_path/"run", rows)))
    assert "nan" not in text.lower().split() and "Which errors" in text


def test_a_run_without_its_other_files(tmp_path, clips):
    run = write_run(tmp_path/"run", rows_of(clips))
    for name in ("hypotheses.csv", "metrics.jsonl", "recipe.yaml", "manifest.json", "quarantine.csv"): (run/name).unlink()
    text = plain(page_of(run))
    assert "The 95 % intervals" in text and "Which clips" not in text
    (run/"metrics.json").unlink()
    with pytest.raises(UserError, match="same command again"): report.write_report(run)


@pytest.mark.parametrize("language, said, heard", [("hi", "किताब मेज़ पर है", "किताब मेज़ पर हो"), ("th", "ขอบคุณ", "ขอบคุน"), (None, "ninakupenda sana", "ninakupemda sana")])
def test_other_scripts(tmp_path, language, said, heard):
    rows = [dict(id=str(i), set="test", speaker=None, accent=None, reference=said, before="", after=heard) for i in range(3)]
    run = write_run(tmp_path/"run", rows, language=language or "sw")
    if not language: (run/"recipe.yaml").write_text("language: null\n")
    page = page_of(run)
    assert heard.split()[-1] in page and said.split()[-1] in page


def test_what_the_hypotheses_say_of_the_clips(tmp_path):
    "The job evaluate writes gender, age, language and duration beside the texts; languages that differ are scored each by its own rules."
    said = {"en": ("Wake me at 7, Mr. Brown!", "wake me at seven mister brown"), "hi": ("किताब मेज़ पर है", "किताब मेज़ पर हो")}
    rows = [dict(id=f"{code}{i}", set="test", speaker=f"s{i}", accent=None, reference=said[code][0], before="", after=said[code][1],
                 gender="female" if i % 2 else "male", age="", language=code, duration_s=1. + i) for code in said for i in range(6)]
    run = write_run(tmp_path/"run", rows, before=False)
    (run/"recipe.yaml").write_text("language: detect\n")
    found = report.study(report.read_run(run))
    assert [int(c[1:].sum()) for c in found["counts"]["after"]] == [0]*6 + [1]*6 and found["codes"] == ["en"]*6 + ["hi"]*6
    assert set(report.group_tables(found)) == {"gender", "language", "speaker", "duration"}
    (run/"recipe.yaml").write_text("language: hi\n")
    assert set(report.study(report.read_run(run))["codes"]) == {"hi"}
    suite = write_run(tmp_path/"suite", [row | dict(benchmark="FLEURS" if i % 2 else "MLS") for i, row in enumerate(rows)], data="common_voice:data/accents")
    text = plain(page_of(suite))
    assert "FLEURS" in text and "the sets of a suite lie in many places" in text


# the page in a browser

@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: python -m pip install playwright")
    if not CHROMIUM: pytest.skip("there is no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--autoplay-policy=no-user-gesture-required"])
        yield chromium
        chromium.close()


class Opened:
    "A page in the browser, and what it has complained of or asked for."
    def __init__(self, browser, path, width=1000, scheme="light"):
        self.context = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme, offline=True)
        self.page, self.errors, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url) if not r.url.startswith("data:") else None)
        self.url = Path(path).as_uri()
        self.page.goto(self.url)
    def __enter__(self): return self
    def __exit__(self, *_): self.context.close()
    def until(self, expression, seconds=30):
        "Asks from outside: `wait_for_function` would ask again by `eval`, which the page's own policy forbids."
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"after {seconds} s still not: {expression}"
            time.sleep(.05)


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser, run):
    with Opened(browser, run/"report.html") as p:
        p.until("[...document.querySelectorAll('audio')].every(a => a.readyState >= 1)")
        assert p.errors == [] and p.asked == [p.url]
        assert p.page.title() == "mine: report"
        assert all(p.page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 50)"))


def test_details_open_on_a_click(browser, run):
    with Opened(browser, run/"report.html") as p:
        recipe = p.page.locator("details", has_text="Recipe")
        assert not recipe.locator("pre").is_visible()
        recipe.locator("summary").click()
        assert recipe.locator("pre").is_visible() and "common_voice:data/accents" in recipe.inner_text()
        p.page.locator("summary", has_text="speakers").click()
        assert p.page.locator("details[open] table.sort").is_visible()


def test_players_play_and_the_picture_seeks(browser, run):
    with Opened(browser, run/"report.html") as p:
        first, second = p.page.locator("audio").nth(0), p.page.locator("audio").nth(1)
        p.until("document.querySelector('audio').readyState >= 1")
        duration = first.evaluate("a => a.duration")
        assert .5 < duration < 10
        p.page.evaluate("for (const a of document.querySelectorAll('audio')) a.muted = true")
        p.page.locator(".mel").nth(0).click(position=dict(x=250, y=20))
        p.until("document.querySelector('audio').currentTime > 0")
        width = p.page.locator(".mel").nth(0).bounding_box()["width"]
        assert first.evaluate("a => a.currentTime") >= duration*250/width - .1
        p.until("parseFloat(document.querySelector('.mel span').style.left) > 10")
        second.evaluate("a => a.play()")
        assert first.evaluate("a => a.paused") and p.errors == []


def test_tables_sort(browser, run):
    with Opened(browser, run/"report.html") as p:
        table = p.page.locator("table.sort", has_text="heard")
        column = lambda: [row.locator("td").nth(3).inner_text() for row in table.locator("tbody tr").all()]
        table.locator("th button", has_text="after").click()
        assert list(map(int, column())) == sorted(map(int, column()), reverse=True)
        assert table.locator("th[aria-sort=descending]").inner_text().startswith("after")
        table.locator("th button", has_text="after").press("Enter")  # by the keyboard, the other way round
        assert list(map(int, column())) == sorted(map(int, column()))
        table.locator("th button", has_text="said").click()
        words = [row.locator("td").nth(0).inner_text() for row in table.locator("tbody tr").all()]
        assert words != sorted(words) and len(set(map(str.lower, words))) > 1 and p.errors == []


def test_light_and_dark_differ_and_can_be_read(browser, run):
    def shade(color):  # relative luminance (WCAG 2.2, section on contrast)
        r, g, b = (x/12.92 if x <= .04045 else ((x + .055)/1.055)**2.4 for x in (int(v)/255 for v in re.findall(r"\d+", color)[:3]))
        return .2126*r + .7152*g + .0722*b
    papers = set()
    for scheme in ("light", "dark"):
        with Opened(browser, run/"report.html", scheme=scheme) as p:
            paper = p.page.evaluate("getComputedStyle(document.body).backgroundColor"); papers.add(paper)
            for place in ("body", "td", "small", "a", "figcaption"):
                light, dark = sorted((shade(paper), shade(p.page.evaluate(f"getComputedStyle(document.querySelector('{place}')).color"))), reverse=True)
                assert (light + .05)/(dark + .05) >= 4.5, (scheme, place)
    assert len(papers) == 2


@pytest.mark.parametrize("width", [360, 320])
def test_a_phone_scrolls_in_one_direction(browser, run, tmp_path, width):
    long = [dict(id=f"{'clips/'*20}{i}.mp3", set="test", speaker="speaker"*12, accent="accent"*15, reference="Donaudampfschifffahrts"*5 + f" {i}",
                 before="unbreakable"*20, after="word "*200) for i in range(12)]
    paths = [run/"report.html"] + [report.write_report(write_run(tmp_path/"long", long))]*(width == 360)
    for path in paths:
        with Opened(browser, path, width=width) as p:
            for details in p.page.locator("summary").all(): details.click()
            assert p.page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_strangers_said_runs_nothing(browser, tmp_path, clips):
    rows = [row | dict(speaker=EVIL, accent=EVIL, reference=f"{EVIL} {i}", before=EVIL, after=f"x {EVIL}") for i, row in enumerate(rows_of(clips.select(range(12)), 0))]
    with Opened(browser, report.write_report(write_run(tmp_path/"run", rows, note=EVIL))) as p:
        assert p.page.title() == "run: report" and p.errors == [] and p.asked == [p.url]


def test_a_translation_is_grouped_by_what_was_spoken_and_scored_as_english(tmp_path):
    rows = [dict(id=f"{code}{i}", set="test", speaker=None, accent=None, reference="it isn't the color", before="", after="it is not the colour", language=code)
            for code in ("de", "fr") for i in range(3)]
    run = report.study(report.read_run(write_run(tmp_path/"run", rows, language=None, task="translate")))
    table = report.group_tables(run)["language"]
    assert table["after"].to_dict() == {"de": 0, "fr": 0} and table["n_clips"].tolist() == [3, 3]
