"""The report: everything inside it, every section with or without records, and nothing that files say is obeyed."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dualat.results.report import plots, reading
from dualat.results.report.page import render, write_report
from dualat.results.report.training import guides

SECTIONS = [
    "headline",
    "training",
    "samples",
    "sweep",
    "robustness",
    "counterfactuals",
    "calibration",
    "detection",
    "energies",
    "throughput",
    "records",
    "settings",
    "versions",
]
FROM_RECORDS = ("sweep", "robustness", "calibration", "detection", "energies", "throughput")


def record(metric: str, value: float, n: int = 400, model: str = "final", **fields) -> dict:
    return {
        "metric": metric,
        "value": value,
        "n": n,
        "ci95": [value - 0.01, value + 0.01],
        "settings": {},
        "seed": 0,
        "model": model,
        "split": "test",
        "seconds": 1.5,
        "versions": {"dualat": "0.1.0", "torch": "2.11.0"},
        "details": {},
        "key": "abc",
        **fields,
    }


def made_up(name: str = "svhn") -> list[dict]:
    """Records of every shape; `name` wherever a file may hold a name."""
    records = [record("clean_accuracy", 0.95), record("clean_accuracy", 0.96, model="stage1")]
    for attack, values in (("pgd", (0.8, 0.6)), ("autoattack", (0.78, 0.55))):
        for eps, value in zip((0.25, 0.5), values, strict=True):
            settings = {"attack": attack, "norm": "L2", "eps": eps} | (
                {"steps": 20} if attack == "pgd" else {}
            )
            records.append(record("robust_accuracy", value, settings=settings))
    linf = {"attack": "apgd", "norm": "Linf", "eps": 0.03, "steps": 50}
    records.append(record("robust_accuracy", 0.4, settings=linf))
    attack = {"norm": "L2", "eps": 1.0, "steps": 20}
    for hit in (None, attack):
        details = {"confidence": [None, 0.55, 0.9], "accuracy": [None, 0.5, 0.95], "share": [0.0, 0.2, 0.8]}
        settings = {"bins": 3, "temperature": 1.0 if hit is None else 1.4, "attack": hit}
        records.append(record("ece", 0.05, settings=settings, details=details))
        for score in ("s", "max_softmax", "gradient_norm"):
            settings = {"score": score, "source": name, "attack": hit}
            curve = {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.8, 1.0]}
            records.append(record("ood_auroc", 0.9, settings=settings, details=curve))
            records.append(record("ood_fpr95", 0.3, settings=settings))
    for images in ("train", "test", "contrastive", "adversarial", f"ood: {name}"):
        histogram = {"edges": [-3.0, -2.0, -1.0, 0.5], "share": [0.2, 0.5, 0.3]}
        records.append(record("energy", -1.5, settings={"images": images}, details=histogram))
    ball = {"eps": 2.0, "norm": "L2", "steps": 50}
    for metric in ("validity", "confidence", "distance", "frechet"):
        details = {"per_class": {name: 0.5, "other": 0.7}}
        records.append(record(f"counterfactual_{metric}", 0.6, settings=ball, details=details))
    speed = {"task": "sampling", "batch_size": 64, "steps": 40, "device": name, "threads": 2}
    records.append(record("throughput", 123.4, ci95=None, settings=speed))
    sweep = {
        "steps": [30, 40, 50],
        "frechet_distance": [30.0, 20.0, 25.0],
        "sample_class_accuracy": [0.8, 0.9, 0.9],
    }
    records.append(record("step_sweep", 40, ci95=None, details=sweep))
    records.append(record("fid", 7.57, 50_000, settings={"features": "inception-v3-compat"}))
    records.append(record("inception_score", 9.86, 50_000, settings={"splits": 10}))
    records.append(record("r1", 2.5, settings={"images": name}))
    return records


def make_run(folder: Path, records: list[dict] | None = None, name: str = "svhn") -> Path:
    """A run folder without a training: curves, pictures, settings and records."""
    (folder / "samples").mkdir(parents=True)
    (folder / "counterfactuals").mkdir()
    for path in ("samples/final", "samples/stage1-000010", "samples/stage2-000020", "counterfactuals/seven"):
        Image.new("RGB", (30, 20), (200, 30, 30)).save(folder / f"{path}.png")
    lines = [
        {"stage": 1, "step": s, "loss": 2 / s, "loss_ce": 2 / s, "lr": 0.1, "r1": 0.1} for s in range(1, 500)
    ]
    lines += [
        {"stage": 2, "step": s, "loss_ce": 0.5, "loss_energy": 0.6, "auroc": 0.7, "T": s} for s in (10, 20)
    ]
    lines += [{"stage": 2, "step": 20, "validation_clean_accuracy": 0.9, "validation_robust_accuracy": 0.6}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"stage": 2, "st'
    (folder / "metrics.jsonl").write_text(text)
    (folder / "config.yaml").write_text(
        "method: dat\nseed: 3\ncontrastive:\n  t_max: 25\n  auc_threshold: 0.65\n"
    )
    (folder / "evaluation.json").write_text(json.dumps(made_up(name) if records is None else records))
    return folder


class Page(HTMLParser):
    """Elements, references, ids and text of a page."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, html: str):
        super().__init__()
        self.html, self.tags, self.references, self.ids, self.text = html, [], [], [], ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in self.VOID else [tag]
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"):
                self.references.append(value)
            if key == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data


def section(html: str, anchor: str) -> str:
    return html.split(f'<section id="{anchor}"')[1].split("</section>")[0]


def test_a_full_report_refers_to_nothing_outside_itself(tmp_path):
    page = Page(render(make_run(tmp_path / "run")))
    assert page.open == [], "every element is closed"
    assert page.references and all(r.startswith(("data:image/png;base64,", "#")) for r in page.references)
    assert "url(" not in page.html and "@import" not in page.html and not re.search(r"https?:", page.html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert len(page.ids) == len(set(page.ids))
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert [i for i in page.ids if not i.endswith("-title")] == SECTIONS
    for tag, attrs in page.tags:
        assert tag != "img" or attrs["alt"]
        assert tag != "svg" or attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
        assert not [a for a in attrs if a.startswith("on")]


def test_every_section_is_filled_and_its_figures_are_the_records(tmp_path):
    html = render(make_run(tmp_path / "run"))
    assert 'class="missing"' not in html
    for anchor in ("training", "sweep", "robustness", "calibration", "detection", "energies"):
        assert '<svg class="chart"' in section(html, anchor), anchor
    cards = re.findall(r'<dt>(.*?)</dt><dd class="value"><span>(.*?)</span>', section(html, "headline"))
    assert cards[:3] == [
        ("Clean accuracy", "0.950"),
        ("Robust accuracy, L2 0.25, AutoAttack", "0.780"),  # AutoAttack's, not PGD's
        ("Robust accuracy, L2 0.5, AutoAttack", "0.550"),
    ]
    assert ("FID", "7.570") in cards and "stage 1: 0.960" in html
    assert section(html, "records").count("<tr>") == len(made_up()) + 1
    robust = section(html, "robustness")
    assert "Accuracy under attack, L2" in robust and "Accuracy under attack, Linf" in robust
    assert "final, PGD-20" in robust and "final, AutoAttack" in robust and "final, APGD-50" in robust
    assert "temperature 1.4, attacked L2 1, ECE 0.050" in section(html, "calibration")
    assert section(html, "detection").count("<li>") == 6
    assert "T_max 25" in section(html, "training") and "T grows above 0.65" in section(html, "training")
    assert "Stage 2: dat" in html and "123.4" in section(html, "throughput")
    assert section(html, "samples").count("<img") == 3 and section(html, "counterfactuals").count("<img") == 1
    assert "auc_threshold: 0.65" in section(html, "settings") and "2.11.0" in section(html, "versions")


def test_every_stage_before_the_last_stands_beside_the_main_results(tmp_path):
    values = {"stage2": 0.8, "stage1": 0.9, "start": 0.1, "best-robust": 0.7, "final": 0.95}
    records = [record("clean_accuracy", value, model=model) for model, value in values.items()]
    html = section(render(make_run(tmp_path / "run", records)), "headline")
    notes = re.findall(r'<dd class="note">(.*?)</dd>', html)
    assert notes == ["n 400", "stage 2: 0.800", "stage 1: 0.900", "start: 0.100"]


def test_a_far_radius_is_told_and_does_not_squeeze_the_curve(tmp_path):
    attack = {"attack": "pgd", "norm": "L2", "steps": 20}
    far = [record("robust_accuracy", 1 - e / 8, settings=attack | {"eps": e}) for e in (0.25, 0.5, 8.0)]
    robust = section(render(make_run(tmp_path / "run", far)), "robustness")
    assert "final, PGD-20 at eps 8: 0.000" in robust
    assert re.findall(r'class="tick mid"[^>]*>([^<]*)<', robust)[-1] == "0.5"


def test_sections_without_records_say_what_makes_them(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1\n")
    html = render(run)
    for anchor in SECTIONS:
        if anchor != "settings":
            assert 'class="missing"' in section(html, anchor), anchor
            assert "`dualat " in section(html, anchor), anchor
    for anchor in FROM_RECORDS:
        assert f"dualat evaluate {run}" in section(html, anchor)
    assert Page(html).open == []


HOSTILE = "</p><script>alert(1)</script><img src=x onerror='y'>\"{{ 7*7 }}&"


def test_hostile_names_are_text(tmp_path):
    run = make_run(tmp_path / "run")
    records = made_up(HOSTILE)
    records[0] |= {"model": HOSTILE, "versions": {HOSTILE: HOSTILE}, "split": HOSTILE}
    records.append(record(HOSTILE, 1.0, settings={HOSTILE: {HOSTILE: [HOSTILE]}}))
    robust = {"attack": HOSTILE, "norm": HOSTILE, "eps": 0.1, "steps": HOSTILE}
    records.append(record("robust_accuracy", 0.1, settings=robust))
    (run / "evaluation.json").write_text(json.dumps(records))
    (run / "config.yaml").write_text(f"method: {json.dumps(HOSTILE)}\n")
    with open(run / "metrics.jsonl", "a") as handle:
        handle.write("\n" + json.dumps({"stage": 3, "step": 1, HOSTILE: 1.0}))
    Image.new("L", (4, 4)).save(run / "counterfactuals" / "<b onload=x>&.png")
    (run / "samples" / "stage2-9.png").write_text("<svg onload='x'>")
    page = Page(render(run))
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags and "b" not in tags and page.open == []
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert all(r.startswith(("data:image/png;base64,", "#")) for r in page.references)
    assert HOSTILE in page.text


def test_odd_records_do_not_stop_the_page(tmp_path):
    odd = [
        {"metric": "clean_accuracy", "value": float("nan"), "n": 0},
        {
            "metric": "ece",
            "value": None,
            "n": 3,
            "settings": None,
            "details": {"confidence": "x", "share": [None]},
        },
        {"metric": "ood_auroc", "value": 0.5, "n": 3, "details": {"fpr": [0, None, 1], "tpr": [0, 1]}},
        {"metric": "energy", "value": 1, "n": 3, "details": {"edges": [1, 1, 2], "share": [0.5, 0.5]}},
        {"metric": "robust_accuracy", "value": 0.5, "n": 3, "settings": {"eps": "big"}},
        {"metric": "step_sweep", "value": 1, "n": 3, "details": {"steps": [], "frechet_distance": []}},
        {"metric": "throughput", "value": 1e9, "n": 1, "ci95": [None, 1], "settings": {"task": None}},
    ]
    html = render(make_run(tmp_path / "run", odd))
    assert "undefined" in html and Page(html).open == []
    assert not re.search(r"\bnan\b", re.sub(r'data:image[^"]*', "", html), re.I)


def test_what_is_no_file_of_records_is_one_sentence(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match="evaluation.json is no file of records"):
        render(run)


def test_the_page_is_written_beside_the_run_and_only_for_runs(tmp_path):
    run = make_run(tmp_path / "run")
    assert write_report(run) == run / "report.html"
    assert (run / "report.html").read_text(encoding="utf-8") == render(run), "the same run, the same page"
    assert write_report(run, tmp_path / "a" / "b.html").is_file()
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="is no run folder"):
            write_report(folder)
    assert list((tmp_path / "empty").iterdir()) == []


def test_axes_map_values_to_pixels_and_ticks_are_round():
    axis = plots.Axis(0.0, 1.0, 100, 0)
    assert (axis(0), axis(0.5), axis(1)) == (100, 50, 0)
    assert axis.ticks() == [0, 0.25, 0.5, 0.75, 1.0]
    assert plots.Axis(0, 1000, 0, 1).ticks() == [0, 250, 500, 750, 1000]
    log = plots.Axis(0.01, 100, 0, 40, log=True)
    assert log(1) == 20 and log.ticks() == [0.01, 0.1, 1, 10, 100]
    assert plots.tick(0.00001) == "1e-5" and plots.tick(-2) == "−2" and plots.tick(0) == "0"


def test_charts_say_what_they_show_and_stay_inside(tmp_path):
    svg = plots.chart("T", [plots.Series("a<b", [0, 10], [1, 3])], "x", "y", guides=[(5.0, "limit")])
    assert 'aria-label="T. x against y. a&lt;b: from 1 at 0 to 3 at 10."' in svg
    ys = [float(y) for points in re.findall(r'points="([^"]*)"', svg) for y in re.findall(r",(\S+)", points)]
    guide = float(re.search(r'class="guide" x1="\d+" y1="([\d.]+)"', svg)[1])
    assert plots.TOP <= guide < ys[1] < ys[0] <= plots.HEIGHT - plots.BOTTOM
    assert plots.chart("T", [plots.Series("a", [], [])], "x", "y") == ""
    assert plots.chart("T", [plots.Series("a", [1.0], [float("nan")])], "x", "y") == ""
    assert "<svg" in plots.chart("T", [plots.Series("a", [1.0], [0.0])], "x", "y"), (
        "a single point, zero range"
    )


def test_long_lines_are_averaged_and_keep_their_extremes():
    s = plots.thin(plots.Series("a", list(range(1000)), [float(i % 2) for i in range(1000)]))
    assert len(s.x) <= plots.DENSEST and s.x[-1] == 999
    assert all(0.4 < y < 0.6 for y in s.y) and set(s.low) == {0.0} and set(s.high) == {1.0}


def test_wide_pictures_are_reduced_and_broken_ones_left_out(tmp_path):
    Image.new("RGB", (3000, 300)).save(tmp_path / "wide.png")
    picture = reading.read_picture(tmp_path / "wide.png")
    assert picture and (picture.width, picture.height) == (1400, 140) and "image/jpeg" in picture.uri
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert reading.read_picture(tmp_path / "bad.png") is None


def test_grids_on_the_way_are_a_few_in_order(tmp_path):
    for stage, step in [(1, 100), *((2, s) for s in range(100, 2000, 100))]:
        Image.new("L", (2, 2)).save(tmp_path / f"stage{stage}-{step:06d}.png")
    names = [p.name for p in reading.sample_grids(tmp_path)]
    assert len(names) == 4 and names == sorted(names)
    assert names[0] == "stage1-000100" and names[-1] == "stage2-001900"


def test_the_line_at_t_max_counts_steps_that_are_taken_as_one():
    for given, expected in (({"t_max": 25}, 25), ({"t_max": 25, "stride": 2}, 13), ({"stride": 2}, None)):
        found = guides("T", {"contrastive": given})
        assert [value for value, _ in found] == ([] if expected is None else [expected])
