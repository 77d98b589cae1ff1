"""Exported files: against Keras and NumPy, the skip, and a world without us."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from tests.support import ROOT
from tf_mskd import SGD, Distiller, add_exits, create_model
from tf_mskd.deployment import export as folder
from tf_mskd.deployment import export_student, verification
from tf_mskd.deployment.saved_model import open_saved_model
from tf_mskd.deployment.tflite import open_tflite
from tf_mskd.early_exit.calibration import calibrate
from tf_mskd.early_exit.exits_file import write_exits
from tf_mskd.early_exit.measure import macs_so_far
from tf_mskd.models.saving import fingerprint
from tf_mskd.runs.finished_run import FinishedRun
from tf_mskd.utils.errors import UserError
from tools import serve_benchmark

QUANTIZATIONS = ["none", "float16", "dynamic", "int8"]
SINGLE = ["exit_1", "exit_2", "exit_3", "exit_4"]
THRESHOLD = np.float32(0.8)


@dataclasses.dataclass
class World:
    """A trained student, its thresholds and a folder of all its files."""

    student: keras.Model
    exits: dict
    exits_file: pathlib.Path
    output: pathlib.Path
    images: np.ndarray  # uint8 [N, 8, 8, 1]
    record: dict

    @property
    def logits(self):
        """float64 [K, N, classes], from Keras."""
        outputs = self.student(self.images)
        return np.stack([np.asarray(outputs[name], np.float64) for name in SINGLE])

    def exits_at(self, limits):
        """NumPy's own early exit: ensemble of the exits so far, largest probability.

        Returns (float [N, classes], int [N] from 1, float [N] distance to a limit).
        """
        scaled = [
            z / self.exits["temperatures"][name]
            for name, z in zip(SINGLE, self.logits, strict=True)
        ]
        p, numbers, gaps = [], [], []
        for row in range(len(self.images)):
            gap = np.inf
            for k in range(4):
                answer = softmax(np.mean([z[row] for z in scaled[: k + 1]], axis=0))
                if 0 < limits[k] <= 1 and k < 3:
                    gap = min(gap, abs(answer.max() - limits[k]))
                if k == 3 or answer.max() >= limits[k]:
                    break
            p.append(answer)
            numbers.append(k + 1)
            gaps.append(gap)
        return np.array(p), np.array(numbers), np.array(gaps)


@pytest.fixture(scope="module")
def world(tmp_path_factory, digits):
    keras.utils.set_random_seed(0)
    images, labels = digits
    student = create_model(
        "resnet10",
        10,
        exits="all",
        width=1 / 8,
        input_shape=(8, 8, 1),
        exit_head="linear",
    )
    distiller = Distiller(student, method="ce")
    distiller.compile(SGD(0.05, l2=5e-4))
    distiller.fit(images[:1000], labels[:1000], batch_size=50, epochs=3, verbose=0)
    path = tmp_path_factory.mktemp("export")
    outputs = student(images[1000:1300])
    outputs = {name: np.asarray(outputs[name]) for name in SINGLE}
    exits = calibrate(
        outputs,
        labels[1000:1300],
        macs_so_far(student),
        criterion="max_probability",
        answer="ensemble",
        max_accuracy_drop=1.0,
    )
    write_exits(path / "exits.json", fingerprint(student), exits)
    record = export_student(
        student,
        path / "files",
        images[1300:1400],
        quantize=QUANTIZATIONS,
        exits_file=path / "exits.json",
        calibration_images=images[:200],
        class_names=[f"digit {k}" for k in range(10)],
    )
    return World(
        student,
        exits,
        path / "exits.json",
        path / "files",
        images[1400:1500],
        record,
    )


def open_file(world, entry):
    path = world.output / entry["file"]
    return open_tflite(path) if path.suffix else open_saved_model(path)


@pytest.fixture(scope="module")
def runners(world):
    return {entry["file"]: open_file(world, entry) for entry in world.record["files"]}


FLOAT = ["saved_model", "student_float32.tflite"]
QUANTIZED = ["student_float16.tflite", "student_dynamic.tflite", "student_int8.tflite"]


def one_by_one(run, images, threshold):
    threshold = np.float32(threshold)
    results = [run(image=image[None], threshold=threshold) for image in images]
    return {key: np.concatenate([r[key] for r in results]) for key in results[0]}


@pytest.mark.run
def test_a_folder_holds_what_its_record_says(world):
    found = {path.name for path in world.output.iterdir()}
    assert found == {"export.json", *FLOAT, *QUANTIZED}
    assert json.loads((world.output / "export.json").read_text()) == world.record
    sizes = {entry["file"]: entry["bytes"] for entry in world.record["files"]}
    assert sizes["student_int8.tflite"] == os.path.getsize(
        world.output / "student_int8.tflite"
    )
    endpoints = {"ensemble", *SINGLE, "early_exit"}
    for entry in world.record["files"]:
        more = (
            {"early_exit_batched", "serving_default"}
            if "model" in entry["file"]
            else set()
        )
        assert set(entry["verification"]) == endpoints | more
        for numbers in entry["verification"].values():
            assert numbers["images"] == 100
            if entry["quantize"] == "none":
                assert numbers["max_difference"] < 1e-4
                assert numbers["same_class"] == numbers["same_exit"] == 1


@pytest.mark.run
@pytest.mark.parametrize("file", FLOAT)
def test_float_endpoints_equal_numpy_on_a_batch(world, runners, file):
    z = world.logits
    scales = np.array(list(world.exits["temperatures"].values()))[:, None, None]
    expected = {name: softmax((z / scales)[k], -1) for k, name in enumerate(SINGLE)}
    expected["ensemble"] = softmax((z / scales).mean(0), -1)
    for name, p in expected.items():
        got = runners[file][name](image=world.images)
        assert got["probabilities"].dtype == np.float32
        assert got["class"].dtype == got["exit"].dtype == np.int32
        np.testing.assert_allclose(got["probabilities"], p, atol=1e-4)
        np.testing.assert_array_equal(got["class"], p.argmax(-1))
        number = 4 if name == "ensemble" else int(name[-1])
        assert (got["exit"] == number).all()


@pytest.mark.run
@pytest.mark.parametrize("file", FLOAT)
@pytest.mark.parametrize("threshold", [0.0, THRESHOLD, 2.0, -1.0])
def test_early_exits_equal_numpy(world, runners, file, threshold):
    calibrated = list(world.exits["thresholds"].values())
    limits = [threshold] * 4 if threshold >= 0 else calibrated
    p, numbers, gaps = world.exits_at(limits)
    clear = gaps > 1e-4
    assert clear.mean() > 0.9
    if threshold in (THRESHOLD, -1.0):
        assert len(set(numbers)) > 1, "nothing is tested if all take one exit"
    found = [one_by_one(runners[file]["early_exit"], world.images, threshold)]
    if "early_exit_batched" in runners[file]:
        run = runners[file]["early_exit_batched"]
        found.append(run(image=world.images, threshold=np.float32(threshold)))
    for got in found:
        np.testing.assert_array_equal(got["exit"][clear], numbers[clear])
        np.testing.assert_allclose(got["probabilities"][clear], p[clear], atol=1e-4)
        np.testing.assert_array_equal(got["class"][clear], p[clear].argmax(-1))


@pytest.mark.run
@pytest.mark.parametrize("threshold", [0.0, THRESHOLD, 2.0, -1.0])
def test_no_images_get_no_answers(world, runners, threshold):
    run = runners["saved_model"]["early_exit_batched"]
    got = run(image=world.images[:0], threshold=np.float32(threshold))
    assert got["probabilities"].shape == (0, 10)
    assert got["class"].shape == got["exit"].shape == (0,)
    assert got["class"].dtype == got["exit"].dtype == np.int32


@pytest.mark.run
@pytest.mark.parametrize("file", QUANTIZED)
def test_quantized_files_predict_and_exit_as_keras_does(world, runners, file):
    for threshold in (0.0, THRESHOLD, 2.0, -1.0):
        calibrated = list(world.exits["thresholds"].values())
        limits = [threshold] * 4 if threshold >= 0 else calibrated
        p, numbers, _ = world.exits_at(limits)
        got = one_by_one(runners[file]["early_exit"], world.images, threshold)
        assert np.mean(got["class"] == p.argmax(-1)) >= 0.95
        # that of threshold -1 fails where the threshold itself becomes an int8
        assert np.mean(got["exit"] == numbers) >= (1 if threshold in (0, 2) else 0.85)


@pytest.mark.run
def test_int8_is_int8_but_the_probabilities_are_not(world, runners):
    sizes = {entry["file"]: entry["bytes"] for entry in world.record["files"]}
    assert sizes["student_int8.tflite"] < 0.6 * sizes["student_float32.tflite"]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(world.output / "student_int8.tflite"))
    kinds = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert np.int8 in kinds
    got = runners["student_int8.tflite"]["ensemble"](image=world.images)
    steps = got["probabilities"] * 256
    assert np.abs(steps - steps.round()).max() > 0.1


@pytest.mark.run
def test_the_margin_of_an_int8_file_is_no_int8(world, tmp_path):
    """The largest two of int8 probabilities would lie in steps of 1/256."""
    exits = json.loads(world.exits_file.read_text())
    (tmp_path / "exits.json").write_text(json.dumps({**exits, "criterion": "margin"}))
    export_student(
        world.student,
        tmp_path / "out",
        world.images[:10],
        formats=["tflite"],
        quantize=["int8"],
        deepest_exit=3,
        exits_file=tmp_path / "exits.json",
        calibration_images=np.resize(world.images, (200, 8, 8, 1)),
    )
    from tensorflow.lite.python import schema_py_generated as schema

    content = (tmp_path / "out" / "student_int8.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    kinds = []
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            if code == schema.BuiltinOperator.TOPK_V2:
                kinds.append(graph.tensors[operator.inputs[0]].type)
    assert kinds == [schema.TensorType.FLOAT32] * 2


@pytest.mark.run
def test_the_metadata_is_in_every_file(world):
    texts = [(world.output / "saved_model/assets.extra/metadata.json").read_text()]
    for entry in world.record["files"][1:]:
        with zipfile.ZipFile(world.output / entry["file"]) as archive:
            texts.append(archive.read("metadata.json").decode())
    for text in texts:
        metadata = json.loads(text)
        assert metadata["class_names"][3] == "digit 3"
        assert metadata["format"] == 2
        assert metadata["criterion"] == "max_probability"
        for key in ("temperatures", "thresholds"):
            assert metadata[key] == world.exits[key]
        assert metadata["student"] == fingerprint(world.student)


@pytest.mark.run
def test_stages_behind_the_exit_are_not_run(tmp_path, digits, tiny):
    """A deep stage full of NaN shows in a full pass, and not where all exit before."""
    images = digits[0][:10]
    student = tiny(exits=(1, 2))
    deep = [layer for layer in student.layers if layer.name.startswith("stage_2")]
    deep = [layer for layer in deep if layer.weights][0]
    deep.set_weights([np.full_like(w, np.nan) for w in deep.get_weights()])
    with pytest.raises(UserError, match="'early_exit' of saved_model returns numbers"):
        export_student(student, tmp_path / "poisoned", images, formats=["saved_model"])
    assert not os.listdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_mskd.deployment.verification.verify", lambda *args: {})
        export_student(student, tmp_path / "poisoned", images)
    files = [open_saved_model(tmp_path / "poisoned" / "saved_model")]
    files.append(open_tflite(tmp_path / "poisoned" / "student_float32.tflite"))
    for endpoints in files:
        at_once = one_by_one(endpoints["early_exit"], images[:1], 0.0)
        assert np.isfinite(at_once["probabilities"]).all()
        full = one_by_one(endpoints["early_exit"], images[:1], 2.0)
        assert np.isnan(full["probabilities"]).all()


def conv_ops(path, signature):
    """Convolutions of a TFLite signature: (outside the branches, in all subgraphs)."""
    from tensorflow.lite.python import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    (main,) = [
        s.subgraphIndex
        for s in model.signatureDefs
        if s.signatureKey.decode() == signature
    ]

    def count(index):
        here = behind = 0
        for operator in model.subgraphs[index].operators or []:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            here += code in kinds
            if code == schema.BuiltinOperator.IF:
                options = operator.builtinOptions
                for branch in (options.thenSubgraphIndex, options.elseSubgraphIndex):
                    behind += sum(count(branch))
        return here, behind

    return count(main)


@pytest.mark.run
def test_deeper_convolutions_lie_in_branches(world):
    path = world.output / "student_float32.tflite"
    alone, _ = conv_ops(path, "exit_1")
    everything, _ = conv_ops(path, "ensemble")
    assert conv_ops(path, "early_exit") == (alone, everything - alone)


@pytest.mark.run
def test_a_truncated_student_holds_nothing_deeper(world, tmp_path):
    record = export_student(
        world.student,
        tmp_path / "two",
        world.images[:10],
        deepest_exit=2,
        exits_file=world.exits_file,
    )
    whole = {entry["file"]: entry["bytes"] for entry in world.record["files"]}
    sizes = {entry["file"]: entry["bytes"] for entry in record["files"]}
    assert record["params"] < world.record["params"] / 3
    for file in FLOAT[1:]:
        assert sizes[file] < whole[file] / 2
    content = b"".join(
        p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()
    )
    assert b"stage_2_" in content and b"stage_3_" not in content
    path = tmp_path / "two" / "student_float32.tflite"
    run = open_tflite(path)
    assert set(run) == {"ensemble", "exit_1", "exit_2", "early_exit"}
    scales = [world.exits["temperatures"][name] for name in SINGLE[:2]]
    z = world.logits[:2] / np.array(scales)[:, None, None]
    got = run["ensemble"](image=world.images)
    np.testing.assert_allclose(got["probabilities"], softmax(z.mean(0), -1), atol=1e-4)
    assert (
        one_by_one(run["early_exit"], world.images[:3], 2.0)["exit"].tolist() == [2] * 3
    )


@pytest.mark.run
def test_mixed_precision_is_exported_in_float32(tmp_path, digits, tiny):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    images = digits[0][:10]
    record = export_student(student, tmp_path / "out", images, formats=["tflite"])
    assert record["student"] == fingerprint(student)
    run = open_tflite(tmp_path / "out" / "student_float32.tflite")
    plain = tiny()
    plain.set_weights(student.get_weights())
    expected = softmax(np.asarray(plain(images)["exit_2"]), -1)
    got = run["exit_2"](image=images)["probabilities"]
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.run
def test_a_students_own_layers_and_exits_are_taken(tmp_path, digits):
    """`add_exits` on a model with a nested one; without thresholds none exits early."""
    image = keras.Input((8, 8, 1), name="picture")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(6, 3)])
    model = keras.Model(image, keras.layers.ReLU(name="second")(inner(x)))
    student = add_exits(model, ["first"], 10, exit_head="linear")
    export_student(student, tmp_path / "out", digits[0][:10], formats=["tflite"])
    run = open_tflite(tmp_path / "out" / "student_float32.tflite")
    got = one_by_one(run["early_exit"], digits[0][:5], -1.0)
    assert got["exit"].tolist() == [2] * 5
    z = student(digits[0][:5])
    mean = (np.asarray(z["exit_1"]) + np.asarray(z["exit_2"])) / 2
    np.testing.assert_allclose(got["probabilities"], softmax(mean, -1), atol=1e-4)


EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), re.S
)


@pytest.mark.run
@pytest.mark.parametrize("example", EXAMPLES, ids=["tflite", "saved_model"])
def test_the_documented_examples_run_without_this_library(world, tmp_path, example):
    os.makedirs(tmp_path / "exports")
    os.symlink(world.output, tmp_path / "exports" / "oto")
    guard = "import sys\nsys.modules['tf_mskd'] = None\n"  # an import would raise
    if "tensorflow" not in example:
        guard += "sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", guard + example],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if "Interpreter" in example:
        lines = [line.split() for line in done.stdout.splitlines()]
        assert [line[0] for line in lines] == ["0.0", "-1.0", "2.0"]
        assert lines[0][-1] == "1" and lines[2][-1] == "4"
        assert all(line[1] == "digit" for line in lines)
    else:
        assert "shape=(8,)" in done.stdout


@pytest.mark.run
def test_signatures_are_those_that_serving_is_told(world):
    loaded = tf.saved_model.load(str(world.output / "saved_model"))
    signature = loaded.signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    assert inputs["image"].shape.as_list() == [None, 8, 8, 1]
    assert inputs["image"].dtype == tf.uint8
    outputs = signature.structured_outputs
    assert {k: v.shape.rank for k, v in outputs.items()} == {
        "probabilities": 2,
        "class": 1,
        "exit": 1,
    }
    _, inputs = loaded.signatures["early_exit_batched"].structured_input_signature
    assert inputs["threshold"].shape.rank == 0


# ---- mistakes: one line each, nothing half-written


@keras.saving.register_keras_serializable(package="test_export")
class Inverse(keras.layers.Layer):
    """An operation that TFLite does not have."""

    def call(self, inputs):
        return inputs + tf.math.erfinv(0.1 * tf.math.tanh(inputs))

    def compute_output_shape(self, input_shape):
        return input_shape


def student_with_a_layer_of_its_own():
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="first")(image)
    x = Inverse(name="strange")(keras.layers.ReLU()(x))
    return add_exits(
        keras.Model(image, keras.layers.Conv2D(4, 3)(x)),
        ["first"],
        10,
        exit_head="linear",
    )


def student_without_exits():
    image = keras.Input((8, 8, 1))
    return keras.Model(image, keras.layers.Flatten()(image))


def student_of_two_images():
    images = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    x = keras.layers.Flatten()(keras.layers.Add()(images))
    return keras.Model(images, {"exit_1": keras.layers.Dense(10, name="exit_1")(x)})


def student_of_a_table():
    row = keras.Input((5,))
    return keras.Model(row, {"exit_1": keras.layers.Dense(10, name="exit_1")(row)})


FEW = np.zeros((50, 8, 8, 1), np.uint8)
MISTAKES = [
    ({"formats": ["tflit"]}, "Unknown format 'tflit'; did you mean 'tflite'"),
    ({"quantize": ["int-8"]}, "Unknown quantization 'int-8'; did you mean 'int8'"),
    ({"quantize": []}, "Name one quantization or more of none, float16"),
    (
        {"formats": ["saved_model"], "quantize": ["int8"]},
        "for TFLite files: add tflite",
    ),
    ({"deepest_exit": 7}, "Unknown exit 'exit_7'; did you mean 'exit_[1-4]'"),
    ({"quantize": ["int8"], "calibration_images": None}, "200 real .* got 0. Leave"),
    ({"calibration_images": FEW, "quantize": ["int8"]}, "200 real images .* got 50"),
    (
        {"images": np.zeros((3, 9, 9, 1), np.uint8)},
        r"images must be uint8 \[N, 8, 8, 1",
    ),
    ({"images": np.zeros((3, 8, 8, 1))}, r"resnet10 takes them, got float64"),
    ({"class_names": ["a"]}, "must name the 10 classes of resnet10, got 1"),
    ({"exits_file": "of another"}, "was fitted for another student"),
    ({"exits_file": "nothing.json"}, "nothing.json is missing"),
    ({"student": student_without_exits}, "has no output named exit_1"),
    ({"student": student_of_two_images}, r"one image \[B, .* reads \(N.*, \(N"),
    ({"student": student_of_a_table}, r"one image .* reads \(None, 5\): Keras exports"),
    ({"student": student_with_a_layer_of_its_own}, "cannot take layer 'strange': .*tf"),
]


@pytest.mark.run
@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(world, tmp_path, changes, message):
    out = tmp_path / "out"
    out.mkdir()
    content = json.loads(world.exits_file.read_text())
    other = tmp_path / "exits.json"
    other.write_text(json.dumps({**content, "student": "0" * 64}))
    arguments = {"student": world.student, "images": world.images}
    arguments |= {"output": out / "here", "formats": ["tflite"], "quantize": ["none"]}
    arguments |= changes
    if changes.get("exits_file") == "of another":
        arguments["exits_file"] = other
    if "student" in changes:
        arguments["student"] = changes["student"]()
    with pytest.raises(UserError, match=message) as caught:
        export_student(**arguments)
    assert str(caught.value).isprintable()
    assert not os.listdir(out)


@pytest.mark.run
def test_a_failure_of_the_quantizer_gets_one_line(tiny, digits, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("scales\ndiffer")

    monkeypatch.setattr("tf_mskd.utils.private.quantize", fails)
    with pytest.raises(UserError, match="cannot take this student: scales differ"):
        export_student(
            tiny(),
            output=tmp_path / "out",
            images=digits[0][:10],
            formats=["tflite"],
            quantize=["int8"],
            calibration_images=digits[0][:200],
        )


@pytest.mark.run
def test_a_file_that_departs_from_keras_is_refused(tiny, digits, tmp_path, monkeypatch):
    student, images = tiny(), digits[0][:10]
    expected = verification.Reference.of

    def shifted(self, endpoint):
        p, *rest = expected(self, endpoint)
        return (p + 2e-4 * (endpoint == "exit_2"), *rest)

    monkeypatch.setattr(verification.Reference, "of", shifted)
    message = (
        "'exit_2' of saved_model departs from Keras: probabilities by up to 0.0002"
    )
    with pytest.raises(UserError, match=message):
        export_student(student, tmp_path / "out", images, formats=["saved_model"])
    assert not os.listdir(tmp_path)

    def permuted(self, endpoint):
        p, *rest = expected(self, endpoint)
        return (p[:, ::-1] if endpoint == "early_exit" else p, *rest)

    monkeypatch.setattr(verification.Reference, "of", permuted)
    message = "'early_exit' of student_float16.tflite departs .* or a tie, for 99%"
    with pytest.raises(UserError, match=message):
        export_student(
            student,
            tmp_path / "out",
            images,
            formats=["tflite"],
            quantize=["float16"],
        )
    assert not os.listdir(tmp_path)


@pytest.mark.run
def test_an_existing_folder_is_kept_unless_overwritten(tiny, digits, tmp_path):
    student = tiny()

    def write(**options):
        options = {"formats": ["saved_model"], **options}
        return export_student(student, tmp_path / "out", digits[0][:4], **options)

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="out exists and is no export"):
        write(overwrite=True)
    (tmp_path / "out" / "letter.txt").unlink()
    write()
    before = (tmp_path / "out" / "export.json").read_text()
    with pytest.raises(UserError, match="holds an export already: add --overwrite"):
        write()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "fingerprint", lambda model: "")
        with patch.context() as inner:
            inner.setattr(verification, "MAX_DIFFERENCE", -1.0)
            with pytest.raises(UserError, match="departs from Keras"):
                write(overwrite=True)
        assert (tmp_path / "out" / "export.json").read_text() == before
        assert write(overwrite=True)["student"] == ""
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out" / "export.json").read_text() != before


@pytest.mark.run
def test_a_disk_that_cannot_be_written_gets_one_line(
    tiny, digits, tmp_path, monkeypatch
):
    replace = os.replace

    def refuse(source, target):
        if pathlib.Path(target) == tmp_path / "out":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(
        UserError, match="Cannot write .*out: No space left on dev[^.]*.$"
    ):
        export_student(tiny(), tmp_path / "out", digits[0][:4], formats=["saved_model"])
    assert not os.listdir(tmp_path)


@pytest.mark.run
def test_tflite_without_litert_says_what_to_install(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="pip install ai-edge-litert==2.3.0"):
        export_student(world.student, tmp_path / "out", world.images)
    assert not os.listdir(tmp_path)


def test_the_benchmarks_mean_counts_each_exit_by_its_fraction():
    ms, timed = np.array([1.0, 3.0, 8.0]), np.array([1, 1, 4])
    counted = np.array([1, 4, 4, 4, 2])  # none that exited at exit 2 was timed
    mean = serve_benchmark.mean_by_exit(ms, timed, counted)
    assert abs(mean - (0.25 * 2.0 + 0.75 * 8.0)) < 1e-12


def test_the_benchmarks_ratios():
    """Known numbers: each ratio, and whether it meets its target."""
    cases = {"exit_1": 2.0, "ensemble": 8.0, "early_exit at 0": 2.1}
    cases |= {"early_exit calibrated": 4.0, "early_exit full": 10.0}
    rows = []
    for file, scale, size in (("float32", 1, 1000), ("int8", 0.5, 250)):
        for case, ms in cases.items():
            row = {"export": "a", "threads": 1, "file": f"student_{file}.tflite"}
            row |= {"case": case, "bytes": size, "accuracy": 0.9 + scale / 50}
            rows.append({**row, "best_ms": ms * scale})
    found = serve_benchmark.ratios(rows)
    values = [(r["ratio"], round(r["value"], 6), r["met"]) for r in found]
    three = [
        ("early_exit at 0 / exit_1", 1.05, True),
        ("early_exit full / ensemble", 1.25, False),
        ("early_exit calibrated / full", 0.4, True),
    ]
    assert values[:3] == values[3:6] == three
    assert values[6:] == [
        ("int8 / float32 bytes", 0.25, True),
        ("int8 / float32 latency", 0.5, True),
        ("points lost by int8", 1.0, True),
    ]
    rows = [{**row, "median_ms": 0, "p95_ms": 0, "mean_exit": 1} for row in rows]
    last = serve_benchmark.tables(rows, found).splitlines()[-3:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in last]
    assert cells[0] == ["a float32", "1", "1.05", "1.25 *", "0.40", "", "", ""]
    assert cells[1][5:] == ["0.25", "0.50", "1.00"]
    assert cells[2][2:] == [str(t) for t in serve_benchmark.TARGETS.values()]


def test_the_recorded_numbers_make_the_recorded_table():
    folder = ROOT / "results" / "deployment"
    recorded = json.loads((folder / "latency.json").read_text())
    assert all(0 <= row["accuracy"] <= 1 for row in recorded["rows"])
    found = serve_benchmark.ratios(recorded["rows"])
    assert [(r["ratio"], r["met"]) for r in found] == [
        (r["ratio"], r["met"]) for r in recorded["ratios"]
    ]
    text = serve_benchmark.tables(recorded["rows"], found) + "\n"
    assert text == (folder / "latency.md").read_text()


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        FinishedRun(tmp_path)
