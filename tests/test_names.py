"""Names of outputs: what is one, which number it has, how names are sorted."""

import pytest

from tf_mskd.utils import names


@pytest.mark.parametrize("name", ["exit_1", "feature_12", "rotation_3", "factor_4"])
def test_outputs_are_known_by_kind_and_number(name):
    assert names.is_output(name)
    assert name == f"{name.rpartition('_')[0]}_{names.number(name)}"


@pytest.mark.parametrize("name", ["exit_0", "exit_01", "exit", "exit_1_bn", "a_exit_1"])
def test_other_names_are_no_outputs(name):
    assert not names.is_output(name)
    assert not names.is_kind(name, "exit")


def test_ten_comes_after_two():
    mixed = ["exit_10", "feature_1", "exit_2", "exit_2_bn", "exit_0"]
    assert names.numbered(mixed, "exit") == ["exit_2", "exit_10"]
    logs = ["val_exit_10_accuracy", "val_exit_9_accuracy", "loss"]
    assert sorted(logs, key=names.by_number) == ["loss", *logs[1::-1]]


def test_every_output_of_an_auxiliary_head_is_an_output():
    for kinds in names.AUX_OUTPUTS.values():
        assert all(names.is_output(f"{kind}_1") for kind in kinds)
