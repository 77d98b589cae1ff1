"""Foreign graphs through exits, training, cuts and files."""

import keras
import numpy as np
import pytest

from tf_mskd import Distiller, add_exits, count_macs, load_model, save_model
from tf_mskd.models import detach_stages, sub_model
from tf_mskd.models.graph import available_outputs
from tf_mskd.utils.errors import UserError

pytestmark = pytest.mark.run  # seconds of building

layers = keras.layers
LABELS = np.arange(8) % 4


def random():
    """The same numbers for every network, whichever tests ran before."""
    return np.random.default_rng(0)


def nested(training=None, base_name="base"):
    """The official form of transfer learning: a base model within a model."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="inner", padding="same")(image)
    x = layers.Activation("relu")(layers.BatchNormalization(name="norm")(x))
    base = keras.Model(image, layers.Conv2D(6, 3, 2, name="last")(x), name=base_name)
    outer = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 127.5, -1)(outer)
    x = base(x) if training is None else base(x, training=training)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(outer, layers.Dense(4)(x)), random().normal(size=(8, 8, 8, 3))


def text(masked=True):
    """Layers are called embedding and embedding_1, as Keras itself calls them."""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 5, mask_zero=masked, name="embedding_1")(tokens)
    x = layers.LSTM(5, return_sequences=True, name="lstm")(x)
    x = layers.LSTM(5, name="feature_2")(x)
    made = random().integers(1, 20, (8, 6))
    made[:, 4:] = 0
    return keras.Model(tokens, layers.Dense(4)(x)), made


def transformer():
    """Padding (token 0) is masked for the attention, and in pooling."""
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(tokens)
    for k in (1, 2):
        attended = layers.MultiHeadAttention(2, 4, name=f"attention_{k}")(x, x)
        x = layers.LayerNormalization(name=f"norm_{k}")(layers.Add()([x, attended]))
    made = random().integers(1, 20, (8, 6))
    made[:, 4:] = 0
    return keras.Model(
        tokens, layers.Dense(4)(layers.GlobalAveragePooling1D()(x))
    ), made


def table():
    row = keras.Input((5,))
    x = layers.Dense(6, activation="relu", name="one")(row)
    x = layers.Dense(6, activation="relu", name="two")(x)
    return keras.Model(row, layers.Dense(4)(x)), random().normal(size=(8, 5))


def two_inputs(kind=list):
    image, row = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="row")
    x = layers.Conv2D(4, 3, name="one")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    x = layers.Dense(4)(layers.Concatenate()([x, row]))
    arrays = [random().normal(size=(8, 8, 8, 3)), random().normal(size=(8, 5))]
    if kind is list:
        return keras.Model([image, row], x), arrays
    model = keras.Model({"image": image, "row": row}, x)
    return model, dict(zip(("image", "row"), arrays, strict=True))


def sequential():
    parts = [layers.Conv2D(4, 3, name="one"), layers.RandomFlip(), layers.Conv2D(4, 3)]
    scale = layers.Normalization(mean=1.0, variance=4.0)
    end = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    model = keras.Sequential([keras.Input((8, 8, 3)), scale, *parts, *end])
    return model, random().normal(size=(8, 8, 8, 3))


def pair_called_twice():
    image = keras.Input((8, 8, 3))
    conv, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    x = layers.Activation("relu", name="one")(norm(conv(image)))
    x = layers.Lambda(lambda x: 2 * x)(norm(conv(x)))
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, x), random().normal(size=(8, 8, 8, 3))


ZOO = {
    "nested": (nested, ["inner"]),
    "text": (text, ["lstm"]),
    "transformer": (transformer, ["norm_1"]),
    "table": (table, ["one", "two"]),
    "lists": (two_inputs, ["one"]),
    "dicts": (lambda: two_inputs(dict), ["one"]),
    "sequential": (sequential, ["one"]),
    "pair": (pair_called_twice, ["one"]),
}


def outputs(model, inputs):
    made = model(inputs, training=False)
    return {name: np.asarray(value) for name, value in made.items()}


@pytest.mark.parametrize("name", ZOO)
def test_a_foreign_network_gets_exits_and_keeps_its_numbers(name, tmp_path):
    make, taps = ZOO[name]
    model, inputs = make()
    student = add_exits(model, taps, 4, exit_head="linear")
    deepest = f"exit_{len(taps) + 1}"
    assert list(student.output)[-1] == deepest
    got = outputs(student, inputs)
    np.testing.assert_allclose(got[deepest], model(inputs, training=False), atol=1e-5)
    assert count_macs(student) >= count_macs(model) > 0
    assert list(sub_model(student, "exit_1").output) == ["exit_1"]
    if name not in (
        "lists",
        "dicts",
        "text",
        "transformer",
    ):  # a row, a mask go around the cut
        detached = outputs(detach_stages(student), inputs)
        np.testing.assert_allclose(detached[deepest], got[deepest], atol=1e-5)
    if name != "pair":  # Keras does not load the code of a Lambda
        save_model(student, tmp_path / "student.keras")
        loaded = outputs(load_model(tmp_path / "student.keras"), inputs)
        for key, value in got.items():
            np.testing.assert_allclose(loaded[key], value, atol=1e-6)


@pytest.mark.parametrize("name", ZOO)
def test_a_foreign_network_learns_from_one_of_its_kind(name):
    make, taps = ZOO[name]
    student, inputs = make()
    teacher, _ = make()
    student = add_exits(student, taps, 4, exit_head="linear")
    distiller = Distiller(student, teacher, "mskd")
    distiller.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    losses = distiller.fit(inputs, LABELS, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    expected = np.asarray(teacher(inputs, training=False))
    got = distiller.teacher_outputs(inputs)["exit_1"]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_positions_behind_the_mask_do_not_count():
    model, tokens = text()
    student = add_exits(model, ["lstm"], 4, features=["embedding_1", "feature_1"])
    made = outputs(student, tokens)
    mean = made["feature_1"][:, :4].mean(1)
    np.testing.assert_allclose(made["embedding_1"], mean, atol=1e-5)


def test_names_of_the_users_own_are_no_trap():
    model, _ = text()
    student = add_exits(model, ["lstm"], 4, features=["embedding_1"])
    assert student.output["embedding_1"].shape == (None, 5)
    assert "feature_2" not in available_outputs(student)
    hand_made = keras.Model(model.input, {"exit_1": model.output})
    assert set(available_outputs(hand_made)) == {"exit_1"}


@pytest.mark.parametrize("training", [None, False])
def test_statistics_of_a_nested_model_move_as_in_keras(training):
    moved = []
    for cut in (False, True):
        model, inputs = nested(training)
        norm = model.get_layer("base").get_layer("norm")
        model = add_exits(model, ["inner"], 4, exit_head="linear") if cut else model
        model(inputs, training=True)
        moved.append(norm.moving_mean.numpy().any())
    assert moved[0] == moved[1]


def test_taps_that_mean_two_calls_are_refused():
    image = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    shared = keras.Model(image, layers.Conv2D(3, 3)(conv(conv(image))))
    with pytest.raises(UserError, match="Tap 'conv' is called 2 times"):
        add_exits(shared, ["conv"], 4)
    part = keras.Model(image, conv(image), name="part")
    twice = keras.Model(image, part(part(image)))
    with pytest.raises(UserError, match="nested model 'part' is called 2 times"):
        add_exits(twice, ["conv"], 4)
    inner, _ = nested(base_name="base")
    first = layers.Conv2D(3, 1, name="last")(image)
    clash = keras.Model(image, inner.get_layer("base")(first))
    with pytest.raises(UserError, match="a layer 'last', and another layer"):
        add_exits(clash, ["inner"], 4)
    with pytest.raises(UserError, match="Unknown tap 'convv'; did you mean 'conv"):
        add_exits(keras.Model(image, part(image)), ["convv"], 4)


def test_a_model_without_taps_has_one_exit():
    model, inputs = nested()
    student = add_exits(model, [], 4)
    got = outputs(student, inputs)
    assert list(got) == ["exit_1"]
    np.testing.assert_allclose(got["exit_1"], model(inputs), atol=1e-5)
