"""Maps of a real run on digits: which images, which teacher, what is drawn."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from tests.reference import softmax
from tests.support import Command, run_of_two_exits
from tf_mskd import UserError, explain, grad_cam
from tf_mskd.models.plain import as_teacher
from tf_mskd.models.saving import load_model, save_model
from tf_mskd.runs import explanation, inputs
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.utils import figures

EXITS = ["teacher exit 1", "student exit 1", "student exit 2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_of_two_exits(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: rows of pictures, and what stands above them."""
    calls = []
    monkeypatch.setattr(figures, "image_grid", lambda *given: calls.append(given))
    return calls


def refused(message, function, *arguments, **options):
    with pytest.raises(UserError, match=message) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_images_are_numbers_or_files(tmp_path):
    path = tmp_path / "1.png"
    path.touch()
    assert inputs.read_image_choice("12") == 12
    assert inputs.read_image_choice(str(path)) == str(path)
    message = "neither the number of a test image nor a file: give numbers from 0, or"
    for text in ("photo.png", "1.5", str(tmp_path)):
        refused(f"--images={text} is {message}", inputs.read_image_choice, text)
    inputs.check_picture("")
    inputs.check_picture("a.PNG")
    refused("--output=a.jpg must be a PNG: end it", inputs.check_picture, "a.jpg")


def test_the_first_image_of_each_class_comes_first():
    labels = np.array([2, 2, 0, 0, 0, 2])
    assert explanation.first_of_classes(labels) == [2, 0, 3, 1, 4, 5]
    assert explanation.first_of_classes(labels, 3) == [2, 0, 3]
    assert len(explanation.first_of_classes(np.arange(100))) == 6


def test_captions_stand_above_their_images(tmp_path):
    images = [{"image": np.zeros((4, 4, 1)), "exit": np.zeros((4, 4, 3))}] * 2
    captions = [{"image": ("$0: a$b", "black"), "exit": ("a 5 %", "red")}] * 2
    figures.image_grid(tmp_path / "a.png", images, captions)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 80).all(-1)
    rows, columns = np.nonzero(red)
    assert rows.size and columns.min() > pixels.shape[1] / 2
    halves = {bool(row > pixels.shape[0] / 2) for row in rows}
    assert halves == {False, True}


def test_the_command_and_the_package_name_one_function():
    assert explain.grad_cam is grad_cam
    with pytest.raises(AttributeError, match="no attribute 'gradcam'"):
        _ = explain.gradcam


@pytest.mark.run
def test_a_strip_shows_what_the_exits_tell(trained, drawn, tmp_path):
    run = FinishedRun(trained)
    header, *table = explanation.explain_run(run, output=tmp_path / "a.png")
    assert header == ["image", "truth", *EXITS]
    numbers = [int(row[0]) for row in table]
    assert [row[1] for row in table] == list("012345")
    ((path, pictures, captions),) = drawn
    assert path == tmp_path / "a.png"
    split, student = run.source.test, run.student()
    teacher = load_model(trained.parent / "teacher")
    images = split.images[numbers]
    assert (split.labels[numbers] == range(6)).all()
    wrong = 0
    for name, network in zip(EXITS, (teacher, student, student), strict=True):
        exit = f"exit_{name[-1]}"
        logits = network(images)[exit].numpy()
        told, sure = logits.argmax(-1), softmax(logits).max(-1)
        maps = grad_cam(network, images, exit)
        assert maps.any()
        for i, row in enumerate(table):
            text = f"{told[i]} {100 * sure[i]:.0f} %"
            assert row[header.index(name)] == text
            colour = "black" if told[i] == i else "red"
            assert captions[i][name] == (text, colour)
            wrong += colour == "red"
            expected = explanation.overlay(images[i], maps[i])
            difference = pictures[i][name].astype(int) - expected
            assert abs(difference).max() <= 1
    assert wrong  # of an untrained teacher
    for i, number in enumerate(numbers):
        assert captions[i]["image"] == (f"{number}: {i}", "black")
        pixels = np.broadcast_to(images[i], (8, 8, 3))
        np.testing.assert_array_equal(pictures[i]["image"], pixels)


@pytest.mark.run
def test_a_file_is_fitted_and_has_no_truth(trained, drawn, tmp_path, capsys):
    run = FinishedRun(trained)
    image = np.arange(96, dtype=np.uint8).reshape(8, 12)
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray(image[:, 2:10]).save(tmp_path / "another_photo_of_digits.png")
    paths = [
        str(tmp_path / name) for name in ("photo.png", "another_photo_of_digits.png")
    ]
    table = explanation.explain_run(run, [paths[0], 3, paths[1]])
    assert [row[:2] for row in table[1:]] == [
        ["photo.png", ""],
        ["3", str(run.source.test.labels[3])],
        ["another_photo_of_digits.png", ""],
    ]
    told = [line for line in capsys.readouterr().out.splitlines() if ".png" in line]
    assert told == [f"{paths[0]} is 8x12: fitted to 8x8, as --resize=crop says."]
    path, pictures, captions = drawn[0]
    assert path == trained / "explain.png"
    np.testing.assert_array_equal(pictures[0]["image"][..., 0], image[:, 2:10])
    assert captions[0]["image"] == ("photo.png", "black")
    assert captions[2]["image"] == ("another_photo_of_digits…", "black")
    assert {captions[0][name][1] for name in EXITS} == {"black"}
    assert [row[2:] for row in table[1::2]][0] == table[3][2:]  # the same pixels


@pytest.mark.run
def test_the_teacher_is_the_one_that_taught_or_is_left_out(
    trained, drawn, tmp_path, capsys
):
    shutil.copytree(trained.parent, tmp_path / "runs")
    flags = tmp_path / "runs" / "run" / "flags.txt"
    moved = flags.read_text().replace(str(trained.parent), str(tmp_path / "runs"))
    flags.write_text(moved)
    run, teacher = FinishedRun(flags.parent), tmp_path / "runs" / "teacher"
    student = run.student()
    assert run.teacher(student) is not None

    def columns():
        return explanation.explain_run(run, [0])[0][2:]

    network = load_model(teacher)
    network.set_weights([2 * w for w in network.get_weights()])
    save_model(network, teacher / "student.keras")
    assert columns() == EXITS[1:]
    assert "Without the teacher: The teacher at" in capsys.readouterr().out
    shutil.rmtree(teacher)
    assert columns() == EXITS[1:]
    assert "Without the teacher: No model file at" in capsys.readouterr().out
    save_model(network, run.paths.trained_teacher)  # of a method that trains it
    assert columns() == EXITS
    flat = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    save_model(as_teacher(keras.Sequential(flat)), run.paths.trained_teacher)
    assert columns() == EXITS[1:]
    assert "Without the teacher: No map" in capsys.readouterr().out
    run.paths.trained_teacher.unlink()
    flags.write_text(
        moved.replace(f"--teacher={teacher}", "--teacher=").replace(
            "--teacher_flagfile=", "--teacher_flagfile=configs/digits/teacher.flags"
        )
    )
    run = FinishedRun(flags.parent)
    shutil.copytree(trained.parent / "teacher", teacher)
    assert columns() == EXITS  # beside the run, by the name of its flagfile
    flags.write_text(moved.replace(f"--teacher={teacher}", "--teacher="))
    assert FinishedRun(flags.parent).teacher(student) is None


@pytest.mark.run
def test_what_cannot_be_explained_is_refused(trained, drawn, tmp_path):
    run = FinishedRun(trained)
    explain = explanation.explain_run
    for number in (-1, 359):
        message = f"--images={number} is no test image: they are 0 to 358"
        refused(message, explain, run, [number])
    refused("holds 100 images at most, got 101", explain, run, [0] * 101)
    (tmp_path / "a.png").write_text("no picture")
    refused(
        "Cannot read image .*a.png .*repair", explain, run, [str(tmp_path / "a.png")]
    )
    for task in ("hashing", "restoration", "multi_label", "segmentation"):
        run.config = dataclasses.replace(run.config, task=task)
        refused(f"one class that an exit tells, the task .* is '{task}'", explain, run)
    assert not drawn


@pytest.mark.run
def test_the_command_draws_and_prints(trained, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a,b.png")
    images = f"--images=5,{tmp_path / 'a,b.png'}"
    output = tmp_path / "out.png"
    arguments = [f"--run_dir={trained}", images, "--images=7", f"--output={output}"]
    done = Command("tf_mskd.explain", *arguments).finish()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[1:-1]]
    assert rows[0] == ["image", "truth", *EXITS]
    assert [row[0] for row in rows[2:]] == ["5", "a,b.png", "7"]
    assert lines[-1] == f"wrote {output}"
    with Image.open(output) as picture:
        assert picture.width > picture.height > 400
    bad = Command("tf_mskd.explain", f"--run_dir={trained}", "--output=a.pdf").finish()
    assert (bad.returncode, bad.stdout) == (2, "")
    last = bad.stderr.splitlines()[-1]
    assert last == "error: --output=a.pdf must be a PNG: end it in .png."
