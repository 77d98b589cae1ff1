"""Runs side by side: the table, and the data of the curves."""

import json

import pytest

from tests.report_folders import EXITS, finished, seeded, watch_panels
from tf_mskd.runs.comparison import find_runs, read_runs
from tf_mskd.runs.report_files import write
from tf_mskd.runs.report_plots import curves, draw
from tf_mskd.runs.report_tables import Report, as_markdown, rows_of, sections
from tf_mskd.runs.seeds import group_seeds
from tf_mskd.utils.errors import UserError
from tf_mskd.utils.files import split_paths
from tf_mskd.utils.run_paths import RunPaths
from tf_mskd.utils.tables import as_text


@pytest.fixture
def folders(tmp_path):
    """A run that averages logits, one that averages probabilities, one of one exit."""
    training = [0.125, 0.25]
    logits = finished(
        tmp_path / "logits",
        {**EXITS, "ensemble": 0.75, "ensemble_probabilities": 0.5},
        ensemble_accuracy=training,
        val_ensemble_accuracy=[0.5, 0.625],
        val_ensemble_probabilities_accuracy=[0.0, 0.0],
    )
    probabilities = finished(
        tmp_path / "probabilities",
        {**EXITS, "ensemble": 1.0, "ensemble_logits": 0.5, "ensemble_fitted": 0.875},
        ensemble_accuracy=training,
        val_ensemble_accuracy=[0.75, 0.875],
        val_ensemble_logits_accuracy=[0.0, 0.0],
    )
    single = finished(
        tmp_path / "single",
        {"exit_2": 0.25, "ensemble": 0.25, "ensemble_probabilities": 0.25},
        ensemble_accuracy=training,
    )
    return [logits, probabilities, single]


def test_the_curves_are_those_of_each_runs_own_ensemble_and_split(folders):
    drawn = curves(read_runs(folders))
    assert drawn.epochs == {
        "logits, validation": ([1, 2], [50.0, 62.5]),
        "probabilities, validation": ([1, 2], [75.0, 87.5]),
        "single, training images": ([1, 2], [12.5, 25.0]),
    }
    assert drawn.exits["logits"] == ([1, 2, 10], [50.0, 75.0, 62.5])
    assert drawn.exits["single"] == ([2], [25.0])
    assert drawn.ensembles == {"logits": (75.0, 75.0), "probabilities": (100.0, 87.5)}


def test_the_curves_name_the_figure_that_they_show(tmp_path):
    """Pixel accuracy of the steps where nothing is held out, or else mIoU."""
    names = {"metric": "miou", "step_metric": "pixel_accuracy"}
    logs = {"ensemble_pixel_accuracy": [0.5], "val_ensemble_miou": [0.25]}
    finished(tmp_path / "a", EXITS, names, ensemble_pixel_accuracy=[0.5])
    finished(tmp_path / "b", EXITS, names, **logs)
    runs = read_runs([tmp_path])
    for name, unit in (("a", "pixel_accuracy (%)"), ("b", "miou (%)")):
        drawn = curves({name: runs[name]})
        assert (drawn.unit, drawn.unit_of_epochs) == ("miou (%)", unit)


def test_the_figure_holds_the_curves(folders, tmp_path, monkeypatch):
    """The data that matplotlib is given, line by line."""
    seen = watch_panels(monkeypatch)
    runs = read_runs(folders)
    draw(runs, tmp_path / "curves.png")
    drawn = curves(runs)
    left, right = ([tuple(map(list, x.get_data())) for x in p.lines] for p in seen)
    assert left == list(drawn.epochs.values())
    assert ([1, 2, 10], [50.0, 75.0, 62.5]) == right[0]
    assert ([10.5], [100.0]) in right and ([10.5], [87.5]) in right
    assert len(right) == 3 + 2 * 2
    for panel, names in zip(seen, (drawn.epochs, drawn.exits), strict=True):
        labels = [text.get_text() for text in panel.get_legend().get_texts()]
        assert labels == list(names)


def test_the_table_sorts_exits_by_number_and_leaves_one_exit_without_ensemble(folders):
    header, *rows = rows_of(read_runs(folders))
    assert header == [
        *("run", "exit 1", "exit 2", "exit 10"),
        *("ensemble", "ensemble logits", "ensemble probabilities", "ensemble fitted"),
        *("params", "MACs", "seconds"),
    ]
    exits, sizes = ["50.00", "75.00", "62.50"], ["1.50 k", "2.00 k", "3"]
    assert rows == [
        ["logits", *exits, "75.00", "", "50.00", "", *sizes],
        ["probabilities", *exits, "100.00", "50.00", "", "87.50", *sizes],
        ["single", "", "25.00", "", "", "", "", "", *sizes],
    ]


@pytest.mark.run  # it draws all plots
def test_a_report_writes_its_table_and_fractions(folders, tmp_path):
    runs = read_runs(folders)
    write(Report(runs, runs), tmp_path / "report")
    text = (tmp_path / "report" / "table.md").read_text()
    assert "| logits        |  50.00 |" in text
    content = json.loads((tmp_path / "report" / "runs.json").read_text())
    assert list(content) == ["logits", "probabilities", "single"]
    assert content["logits"]["result"] == runs["logits"].result.to_json()
    assert content["single"]["history"] == runs["single"].history
    assert (tmp_path / "report" / "curves.png").stat().st_size > 10_000


def test_two_folders_of_one_name_are_told_apart(tmp_path):
    folders = [
        finished(tmp_path / name / "kd", {"exit_1": value}, ensemble_accuracy=[0.5])
        for name, value in (("a", 0.25), ("b", 0.75))
    ]
    runs = read_runs(folders)
    assert [r.result.test["exit_1"] for r in runs.values()] == [0.25, 0.75]
    assert list(runs) == [str(folder) for folder in folders]


def test_folders_without_a_finished_run_are_refused(tmp_path):
    with pytest.raises(UserError, match="--run_dirs is empty"):
        read_runs([])
    with pytest.raises(UserError, match="holds no finished run"):
        read_runs([tmp_path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no epoch"),
        ('{"epoch": 1}\n', "line 1 is not that of an epoch"),
        ('{"epoch": 1, "ensemble_accuracy": 0.5}\n{"epoch": 2}\n', "line 2"),
    ],
)
def test_a_damaged_history_is_refused(folders, text, message):
    RunPaths(folders[0]).history.write_text(text)
    with pytest.raises(UserError, match=f"metrics.jsonl is damaged: .*{message}"):
        read_runs(folders)


@pytest.mark.parametrize("test", [{}, {"exit_1": 0.5, "exit_2": 0.5}])
def test_a_result_without_its_main_figure_is_refused(tmp_path, test):
    folder = finished(tmp_path / "a", test, ensemble_accuracy=[0.5])
    with pytest.raises(UserError, match="result.json is damaged: it holds no 'ensembl"):
        read_runs([folder])


# ---- runs are known by their paths


def seeds(root, count=3):
    return [
        finished(root / f"seed{k}" / "mskd", {"exit_1": k / 4}, ensemble_accuracy=[0.5])
        for k in range(count)
    ]


def test_seeds_of_one_recipe_are_rows_known_by_their_path(tmp_path):
    folders = seeds(tmp_path)
    rows = rows_of(read_runs(folders))
    assert [row[0] for row in rows[1:]] == [str(folder) for folder in folders]
    assert [row[1] for row in rows[1:]] == ["0.00", "25.00", "50.00"]


def test_one_run_given_in_two_ways_is_one_row(tmp_path, monkeypatch):
    (folder,) = seeds(tmp_path, 1)
    monkeypatch.chdir(folder)
    assert list(read_runs([".", folder, f"{folder}/", "../mskd"])) == ["mskd"]
    assert list(read_runs([folder / ".."])) == ["mskd"]


def test_a_folder_of_runs_stands_for_the_finished_ones_in_it(tmp_path):
    names = ["lr=0.05,l2=0.0001", "lr=0.1,l2=0.0001"]
    for name in names:
        finished(tmp_path / name, EXITS, ensemble_accuracy=[0.5])
    (tmp_path / "search_2").mkdir()
    (tmp_path / "oracle.json").write_text("{}", encoding="utf-8")
    assert [folder.name for folder in find_runs([tmp_path])] == names
    assert list(read_runs([tmp_path])) == names


@pytest.mark.parametrize(
    "name",
    ["lr=0.05,l2=1e-4", "a, b", "mine and yours", "写真", "été,2", "a[1]", "a|b"],
)
def test_a_path_of_any_letters_is_one_run(tmp_path, name):
    """Alone, between others, and in the table and the figure."""
    folder = str(finished(tmp_path / name, EXITS, ensemble_accuracy=[0.5]))
    other = str(finished(tmp_path / "other", EXITS, ensemble_accuracy=[0.5]))
    assert split_paths(folder) == [folder]
    assert split_paths(f"{other},{folder}, {other}") == [other, folder, other]
    runs = read_runs([folder, other])
    assert list(runs) == [name, "other"]
    lines = as_text(rows_of(runs)).splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_paths_that_do_not_exist_are_split_at_each_comma():
    assert split_paths("no/a,no/b , no/c,") == ["no/a", "no/b", "no/c"]
    assert split_paths("") == []


def test_a_name_is_no_formula_in_the_figure(tmp_path):
    for name in ("_a", "cost_$5", "$x^$"):
        finished(tmp_path / name, {"exit_1": 0.5}, ensemble_accuracy=[0.5])
    draw(read_runs([tmp_path]), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_report_reads_results_in_percent_of_the_former_format(tmp_path):
    folder = finished(tmp_path / "old", EXITS, ensemble_accuracy=[0.5])
    test = {"exit_4": 51.0, "ensemble": 52.0, "fitted": 53.0, "mean_probabilities": 54}
    macs = {"exit_4": 1, "ensemble": 1}
    content = {"test": test, "macs": macs, "params": 1, "seconds": 1.0}
    RunPaths(folder).result.write_text(json.dumps(content), encoding="utf-8")
    result = read_runs([folder])["old"].result
    assert result.test == {
        **{"exit_4": 0.51, "ensemble": 0.52},
        **{"ensemble_fitted": 0.53, "ensemble_probabilities": 0.54},
    }
    for change in ({"test": {"exit_4": 101.0}}, {"test": None}, {"macs": {}}):
        text = json.dumps({**content, **change})
        RunPaths(folder).result.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="result.json is damaged"):
            read_runs([folder])


# ---- seeds


def test_runs_of_one_recipe_are_a_mean_and_a_deviation(tmp_path):
    """0.50, 0.52, 0.57: mean 0.53, variance (9 + 1 + 16) / 2 = 13 in 1e-4."""
    folders = seeded(tmp_path) + seeded(tmp_path, (0.5,), "other", lr=0.2)
    runs = read_runs(folders)
    shown = group_seeds(runs)
    header, *rows = rows_of(shown)
    assert header == [
        *("run", "exit 1", "exit 2", "ensemble", "params", "MACs", "seconds", "seeds")
    ]
    cells = ["53.00 ± 3.61", "75.00 ± 0.00", "63.00 ± 3.61"]
    assert rows == [
        ["kd_seed*", *cells, "1.50 k", "2.00 k", "3", "3"],
        ["other_seed0", "50.00", "75.00", "60.00", "1.50 k", "2.00 k", "3", "1"],
    ]
    drawn = curves(shown)
    assert drawn.epochs["kd_seed*, validation"] == ([1, 2], [25.0, 50.0])
    assert drawn.exits["kd_seed*"] == ([1, 2], pytest.approx([53.0, 75.0]))
    deviations = pytest.approx([100 * 0.0013**0.5, 0.0])
    assert drawn.deviations == {"kd_seed*": deviations}
    assert "53.00 ± 3.61" in as_markdown(sections(Report(runs, shown)))


def test_rows_of_seeds_are_told_apart(tmp_path):
    """By their common name; by all names where that says nothing or is another's."""
    folders = [
        *seeded(tmp_path, (0.5, 0.5), "kd"),
        *(seeded(tmp_path / f"{k}", (0.5,), "x", [k], lr=0.2)[0] for k in (0, 1)),
    ]
    names = list(group_seeds(read_runs(folders)))
    assert names == ["kd_seed*", "x_seed*"]
    runs = dict(zip(["a", "b", "c", "d"], read_runs(folders).values(), strict=True))
    assert list(group_seeds(runs)) == ["a, b", "c, d"]


def test_a_seed_counts_once(tmp_path):
    folders = [seeded(tmp_path / name, (0.5,), name)[0] for name in "ab"]
    message = "a_seed0 and b_seed0 are runs of one recipe with the same --seed=0: leave"
    with pytest.raises(UserError, match=message):
        group_seeds(read_runs(folders))
