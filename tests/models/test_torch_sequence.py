"""Files of torch.save from before PyTorch 1.6: equal arrays, and every refusal."""

import pickle

import numpy as np
import pytest

from tests.models import torch_writer as writer
from tests.models.test_torch_file import ARRAYS
from tf_mskd.models.state_files import read_state
from tf_mskd.models.torch_file import read_torch_file
from tf_mskd.utils.errors import UserError


def test_arrays_of_every_kind_come_back(tmp_path):
    path = tmp_path / "w.pth"
    tensors = {name: writer.tensor_of(array) for name, array in ARRAYS.items()}
    writer.save_sequence(path, {"epoch": 3, "state_dict": tensors})
    read = read_state(path)
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_views_of_one_storage_come_out_right(tmp_path):
    shared = writer.Storage(np.arange(24.0))
    bits = writer.bfloat16_bits([1.0, -2.5, 0.0])
    tensors = {
        "transposed": writer.Tensor(shared, (6, 4), (1, 6)),
        "parameter": writer.Parameter(writer.Tensor(shared, (3,), (2,), offset=7)),
        "half": writer.Tensor(writer.Storage(bits, "bfloat16"), (3,), (1,)),
    }
    writer.save_sequence(tmp_path / "w.pth", tensors)
    read = read_torch_file(tmp_path / "w.pth")
    np.testing.assert_array_equal(read["transposed"], np.arange(24.0).reshape(4, 6).T)
    np.testing.assert_array_equal(read["parameter"], [7, 9, 11])
    np.testing.assert_array_equal(read["half"], [1.0, -2.5, 0.0])


def test_equals_torch_where_it_is_installed(tmp_path):
    torch = pytest.importorskip("torch")
    saved = {"a": torch.arange(24.0).reshape(4, 6).t(), "b": torch.ones(2)}
    path = tmp_path / "w.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    read = read_torch_file(path)
    for name, tensor in saved.items():
        np.testing.assert_array_equal(read[name], tensor.numpy())


def test_every_truncated_file_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    tensors = {"a": writer.tensor_of(np.ones(3)), "b": writer.tensor_of(np.ones(2))}
    writer.save_sequence(path, tensors)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        message = "no whole file of torch.save|no file of torch.save, or cut short"
        with pytest.raises(UserError, match=message):
            read_torch_file(path)


class Call:
    """Pickles as a call of eval."""

    def __reduce__(self):
        return eval, ("1",)


def test_malicious_parts_are_refused_wherever_they_stand(tmp_path):
    path, tensors = tmp_path / "w.pth", {"a": writer.tensor_of(np.ones(3))}
    writer.save_sequence(path, tensors | {"b": Call()})
    with pytest.raises(
        UserError, match="w.pth' calls __builtin__.eval, which a file o"
    ):
        read_torch_file(path)
    writer.save_sequence(path, tensors)
    whole, call = path.read_bytes(), pickle.dumps(Call(), 2)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    keys = pickle.dumps(["0"], 2)
    for spoiled in (head + call + whole[len(head) :], whole.replace(keys, call)):
        assert spoiled != whole
        path.write_bytes(spoiled)
        with pytest.raises(
            UserError, match="calls __builtin__.eval, which a file of w"
        ):
            read_torch_file(path)


def test_parts_that_do_not_fit_are_refused(tmp_path):
    path, tensors = tmp_path / "w.pth", {"a": writer.tensor_of(np.ones(3))}
    writer.save_sequence(path, tensors, little_endian=False)
    with pytest.raises(UserError, match="w.pth' must be little-endian: save it on"):
        read_torch_file(path)
    writer.save_sequence(path, tensors, more=[("1", 0, 3)])
    with pytest.raises(UserError, match="a storage is part of another, which only old"):
        read_torch_file(path)
    writer.save_sequence(path, tensors)
    whole, keys = path.read_bytes(), pickle.dumps(["0"], 2)
    spoiled = {
        "list of storages is not that of its tensors": (keys, pickle.dumps(["1"], 2)),
        "storages is not that of": (keys, pickle.dumps({"0": 1}, 2)),
        "storage '0' must have 3 numbers": (b"\x03" + bytes(7), b"\x04" + bytes(7)),
    }
    for message, (old, new) in spoiled.items():
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(
            UserError, match=f"no whole file of torch.save: .*{message}"
        ):
            read_torch_file(path)
    shared = writer.Storage(np.ones(2))
    writer.save_sequence(path, [shared, shared])
    before, count, after = path.read_bytes().rpartition(b"K\x02N")
    path.write_bytes(before + count.replace(b"\x02", b"\x01") + after)
    with pytest.raises(UserError, match="storage '0' has two kinds or sizes"):
        read_torch_file(path)
