"""What exits cost beside the rest of the network, by hand."""

import keras
import pytest

from tf_mskd import add_exits, create_model, exit_costs
from tf_mskd.models import sub_model
from tf_mskd.utils.errors import UserError


def network(width, kernel=3):
    """Three convolutions on 8x8; the last one's width and kernel."""
    image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 1, name="one")(image)
    x = keras.layers.Conv2D(8, 1, 2, name="two")(x)
    x = keras.layers.Conv2D(width, kernel, padding="same", name="three")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def test_costs_by_hand():
    model = add_exits(network(8), ["one", "two"], 10, exit_head="linear")
    one, two, three = 64 * 2 * 4, 16 * 4 * 8, 16 * 9 * 8 * 8
    costs = exit_costs(model)
    assert costs["exit_1"] == (one, 4 * 10, two + three + 80)
    assert costs["exit_2"] == (one + two, 8 * 10, three + 80)
    assert costs["exit_2"].share == 80 / (three + 80)


@pytest.mark.parametrize(
    "width, kernel, kind",
    [
        (8, 7, "dense"),  # 9216 of 50176
        (64, 3, "separable"),  # dense 73728, separable 11520 of 73728
        (8, 3, "linear"),  # dense 9216, separable 4352, bottleneck more, of 9216
    ],
)
def test_auto_takes_the_strongest_head_within_a_quarter(width, kernel, kind):
    model = network(width, kernel)
    auto = add_exits(model, ["two"], 10)  # the default
    chosen = add_exits(model, ["two"], 10, exit_head=kind)
    names = [[layer.name for layer in m.layers] for m in (auto, chosen)]
    assert names[0] == names[1]


def test_costs_are_told(capsys):
    add_exits(network(8), ["one", "two"], 10, exit_head="linear")
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "| exit   |   head | MACs before | of the head |  saved | head / saved |",
        "| ------ | -----: | ----------: | ----------: | -----: | -----------: |",
        "| exit_1 | linear |         512 |          40 | 9.81 k |          0 % |",
        "| exit_2 | linear |      1.02 k |          80 | 9.30 k |          1 % |",
    ]
    assert not told.err


@pytest.mark.parametrize("verbose", [True, False])
def test_a_head_that_costs_more_than_it_saves_is_warned_of(verbose, capsys):
    add_exits(network(8), ["one", "two"], 10, exit_head="dense", verbose=verbose)
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    # exit_1: 2304 + 9216 + 80 of 9808; exit_2: 9216 + 80 of 9296
    message = (
        "warning: the head of exit_1 costs more than leaving there saves, the rest"
    )
    assert line.startswith(message)
    assert bool(told.out) == verbose


@keras.saving.register_keras_serializable(package="test_costs")
class Unknown(keras.layers.Layer):
    """Has weights, so its cost is not known."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1], shape[-1]))

    def call(self, inputs):
        return inputs @ self.scale


@pytest.mark.parametrize("verbose", [True, False])
def test_where_costs_are_not_known_the_head_is_linear(verbose, capsys):
    image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 1, name="one")(image)
    model = keras.Model(image, keras.layers.Conv2D(4, 3)(Unknown(name="own")(x)))
    made = add_exits(model, "one", 10, verbose=verbose)
    assert not [layer for layer in made.layers if layer.name.startswith("exit_1_conv")]
    told = capsys.readouterr().out
    message = "The costs of the exits are not known: count_macs does not know 'own'"
    assert told.startswith(message) if verbose else not told


def test_what_has_no_tap_is_named():
    model = create_model("resnet10", 4, exits="all", width=0.1)
    image = keras.Input((8,))
    made = {f"exit_{k}": keras.layers.Dense(2)(image) for k in (1, 2)}
    with pytest.raises(UserError, match="needs the layer 'feature_1' at the tap of"):
        exit_costs(keras.Model(image, made))
    assert exit_costs(sub_model(model, "exit_4")) == {}
