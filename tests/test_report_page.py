"""The page of a report and the numbers beside it."""

import html.parser
import json

import pytest

from tests.report_folders import finished, seeded, watch_panels
from tf_mskd.runs.comparison import read_runs
from tf_mskd.runs.paired import paired_with
from tf_mskd.runs.report_files import summary, write
from tf_mskd.runs.report_page import page
from tf_mskd.runs.report_plots import draw, draw_intervals, draw_macs
from tf_mskd.runs.report_tables import (
    Report,
    Section,
    as_markdown,
    best_rows,
    deployed_rows,
    sections,
)
from tf_mskd.runs.seeds import group_seeds
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.run_paths import RunPaths

BEST = {"exit_1": 0.25, "exit_2": 0.5, "ensemble": 0.75}
VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """Refuses tags that are not closed; keeps tables, images and what is fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.images, self.cells = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        known = dict(attrs)
        self.fetched += [known[name] for name in ("src", "href") if name in known]
        if tag == "img":
            self.images.append(known["src"])
        assert tag not in ("script", "link", "iframe", "object")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


@pytest.fixture
def study(tmp_path):
    """A report of two recipes, one of which has a record."""
    base = seeded(tmp_path / "runs", name="student")
    other = seeded(tmp_path / "runs", (0.51, 0.53, 0.58), "kd", lr=0.2)
    record = {
        "command": ["train.py", "--lr=0.2 <b>", "\ud800"],
        "versions": {"keras": "3.15"},
    }
    record |= {"commit": "abc", "machine": "x86_64, 2 cores"}
    RunPaths(other[1]).record.write_text(json.dumps(record), encoding="utf-8")
    runs = read_runs([*base, *other])
    shown = group_seeds(runs)
    return Report(runs, shown, None, paired_with(shown, "student"))


@pytest.mark.run  # it draws all plots
def test_the_page_holds_everything(study, tmp_path):
    names = write(study, tmp_path / "report")
    assert sorted(names) == sorted(p.name for p in (tmp_path / "report").iterdir())
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert len(found.images) == 3 and found.fetched == found.images
    assert all(
        image.startswith("data:image/png;base64,iVBOR") for image in found.images
    )
    assert "http" not in text and "url(" not in text and "@import" not in text
    for section in sections(study):
        assert section.title in text
        for row in section.rows:
            assert all(cell in found.cells for cell in row if cell)
        assert section.note in (tmp_path / "report" / "table.md").read_text()
    assert "train.py &#x27;--lr=0.2 &lt;b&gt;&#x27; &#x27;\\ud800&#x27;" in text
    assert "kd_seed1: abc, x86_64, 2 cores, keras 3.15" in text
    assert "student_seed0: no record" in text and "--lr=0.2\n" in text
    assert '<td class="better">better</td>' in text


@pytest.mark.run
def test_the_plots_show_the_numbers_of_the_tables(study, tmp_path, monkeypatch):
    """The data that matplotlib is given."""
    seen = watch_panels(monkeypatch)
    draw_macs(study.rows, tmp_path / "macs.png")
    draw_intervals(study, tmp_path / "intervals.png")
    draw(study.rows, tmp_path / "curves.png")
    macs, reached, differences, during, _ = seen
    dots = [tuple(map(list, line.get_data())) for line in macs.lines]
    assert ([10, 10], pytest.approx([53.0, 75.0])) in dots
    (square,) = [x for x in dots if x[1] == pytest.approx([64.0])]
    assert square[0] == pytest.approx([2000], rel=0.1)
    (bar,) = differences.patches
    assert (bar.get_width(), bar.get_y() + 0.3) == pytest.approx((1.0, 1.0))
    names = [label.get_text() for label in reached.get_yticklabels()]
    assert names == ["student_seed*", "kd_seed*"]
    assert differences.get_legend().get_texts()[0].get_text() == "better"
    band = during.collections[0].get_paths()[0].vertices[:, 1]
    # 0, 25 and 50 in epoch 1: mean and sample deviation 25
    assert (band.min(), band.max()) == pytest.approx((0.0, 50.0))
    assert sum(len(panel.containers) for panel in (reached, differences)) == 2 + 2


def test_names_are_no_markup(study):
    run = study.rows["kd_seed*"]
    text = page([Section("<i>", "a & b", [["<u>"], ["<b>x"]])], [], {"<s>": run})
    Page(text)
    for mark in ("<i>", "<u>", "<b>", "<s>", "a & b"):
        assert mark not in text


@pytest.mark.parametrize("text", ["[]", '{"command": 5}', '{"versions": []}'])
def test_a_damaged_record_is_refused(study, text):
    run = study.rows["kd_seed*"]
    RunPaths(run.folder).record.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="run.json is damaged: it holds no command"):
        page([], [], {"kd": run})


def test_the_summary_holds_the_numbers(study):
    found = json.loads(json.dumps(summary(study)))
    row = found["rows"]["kd_seed*"]
    assert row["seeds"] == [0, 1, 2] and row["macs"]["ensemble"] == 2000
    assert row["test"]["exit_1"]["mean"] == pytest.approx(0.54)
    assert row["test"]["exit_1"]["deviation"] == pytest.approx(0.0013**0.5)
    assert found["format"] == 1 and found["paired"]["against"] == "student_seed*"
    paired = found["paired"]["last"]["kd_seed*"]
    assert paired["values"] == pytest.approx([0.01] * 3)
    assert paired["claim"] == "better" and paired["seeds"] == [0, 1, 2]


def test_the_best_epoch_is_the_first_that_none_surpasses(tmp_path):
    """Epochs in which an exit is not yet trained do not count."""
    logs = [0.9, 0.5, 0.7, 0.7, 0.6]
    folder = finished(
        tmp_path / "kd",
        {"exit_1": 0.5, "exit_2": 0.5, "ensemble": 0.5},
        {"test_best": BEST},
        val_ensemble_accuracy=logs,
        phase=[1, 2, 2, 2, 2],
    )
    runs = read_runs([folder])
    assert runs["kd"].best_epoch == 3
    assert best_rows(runs) == [
        ["run", "exit 1", "exit 2", "ensemble", "epoch"],
        ["kd", "25.00", "50.00", "75.00", "3"],
    ]
    report = Report(runs, runs)
    assert "## Best epoch by validation" in as_markdown(sections(report))
    assert summary(report)["rows"]["kd"]["best_epochs"] == [3]


def test_best_epochs_of_seeds_are_a_mean_and_a_range(tmp_path):
    folders = seeded(tmp_path, (0.5, 0.5), result={"test_best": BEST})
    for folder, epochs in zip(folders, ([1, 2], [2, 1]), strict=True):
        lines = [
            json.dumps({"epoch": k, "phase": 2, "val_ensemble_accuracy": value / 2})
            for k, value in enumerate(epochs, start=1)
        ]
        RunPaths(folder).history.write_text("\n".join(lines), encoding="utf-8")
    (_, row) = best_rows(group_seeds(read_runs(folders)))
    assert row[1:] == ["25.00 ± 0.00", "50.00 ± 0.00", "75.00 ± 0.00", "1-2", "2"]


def test_a_run_without_validation_has_no_best_epoch(tmp_path):
    runs = read_runs(seeded(tmp_path, (0.5,)))
    last, deployed = sections(Report(runs, runs))
    assert (last.title, deployed.title) == ("Last epoch", "Deployed")
    assert last.note.endswith("so there is no best epoch.")
    assert next(iter(runs.values())).best_epoch is None


def test_what_is_deployed_is_each_exit_or_all(tmp_path):
    several = {"exit_1": 0.5, "exit_10": 0.75, "ensemble": 1.0}
    sizes = {"exit_params": {"exit_1": 100, "exit_10": 1400}}
    sizes |= {"macs": {"exit_1": 40, "exit_10": 60, "ensemble": 100}}
    finished(tmp_path / "a", several, sizes, ensemble_accuracy=[0.5])
    one = {"exit_4": 0.25, "ensemble": 0.25}
    finished(tmp_path / "b", one, ensemble_accuracy=[0.5])
    finished(tmp_path / "c", several, ensemble_accuracy=[0.5])
    assert deployed_rows(read_runs([tmp_path])) == [
        ["run", "deployed", "test accuracy (%)", "params", "MACs"],
        ["a", "exit 1", "50.00", "100", "40"],
        ["a", "exit 10", "75.00", "1.40 k", "60"],
        ["a", "all exits", "100.00", "1.50 k", "100"],
        ["b", "exit 4", "25.00", "1.50 k", "2.00 k"],
        ["c", "exit 1", "50.00", "", "10"],  # a run of a former version
        ["c", "exit 10", "75.00", "", "10"],
        ["c", "all exits", "100.00", "1.50 k", "2.00 k"],
    ]


def test_a_figure_without_a_unit_has_four_digits(tmp_path):
    unit = {"unit": "", "metric": "ssim"}
    shown = group_seeds(
        read_runs(
            [
                *seeded(tmp_path, (0.5, 0.5), "a", result=unit),
                *seeded(tmp_path, (0.625, 0.5), "b", result=unit, lr=0.2),
            ]
        )
    )
    report = Report(shown, shown, None, paired_with(shown, "a"))
    last, paired, _ = [section.rows for section in sections(report)]
    assert last[2][:3] == ["b_seed*", "ssim", "0.5625 ± 0.0884"]
    assert paired[0][3] == "ssim" and paired[1][3] == "+0.0625"
