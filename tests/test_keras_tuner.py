"""KerasTuner searches over functions that return a compiled Distiller."""

import keras_tuner
import numpy as np
import pytest

from tf_mskd import SGD, Distiller

pytestmark = pytest.mark.run  # a search


def test_a_search_maximises_the_accuracy_of_the_ensemble(tiny, digits, tmp_path):
    teacher = tiny()
    images, labels = digits[0][:32], digits[1][:32]

    def build(parameters):
        rate = parameters.Choice("rate", [0.0, 0.1])
        distiller = Distiller(tiny(), teacher, "mskd")
        distiller.compile(SGD(rate), run_eagerly=True)
        return distiller

    folder = {"directory": tmp_path, "project_name": "search"}
    name = "val_ensemble_accuracy"
    tuner = keras_tuner.GridSearch(
        build, objective=keras_tuner.Objective(name, "max"), max_trials=2, **folder
    )
    data = {"validation_data": (images, labels), "verbose": 0}
    tuner.search(images, labels, epochs=2, **data)
    found = tuner.oracle.get_best_trials(2)
    assert {trial.hyperparameters["rate"] for trial in found} == {0.0, 0.1}
    assert found[0].score >= found[1].score
    (best,) = tuner.get_best_models()
    assert isinstance(best, Distiller)
    told = best.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(told["ensemble_accuracy"], found[0].score, 1e-6)


def test_the_direction_of_a_bare_name_is_not_known(tmp_path):
    """Why docs/python.md writes the direction: KerasTuner knows Keras' names alone."""
    with pytest.raises(ValueError, match="Could not infer optimization direction"):
        keras_tuner.RandomSearch(
            lambda parameters: None,
            objective="val_ensemble_accuracy",
            directory=tmp_path,
        )
