"""Files of torch.save: equal arrays, and every refusal, with nothing executed."""

import builtins
import collections
import pickle
import zipfile

import numpy as np
import pytest

from tests.models import torch_writer as writer
from tf_mskd.models.state_files import read_state
from tf_mskd.models.torch_file import read_torch_file
from tf_mskd.utils.errors import UserError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RANDOM.normal(size=(4, 3, 3, 3)).astype("float32"),
    "double": RANDOM.normal(size=(5,)),
    "half": RANDOM.normal(size=(2, 3)).astype("float16"),
    "num_batches_tracked": np.array(2**40),
    "flag": np.array([True, False]),
    "empty": np.zeros((0, 3), "float32"),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_every_kind_come_back(tmp_path, protocol):
    path = tmp_path / "w.pth"
    tensors = {name: writer.tensor_of(array) for name, array in ARRAYS.items()}
    writer.save(path, tensors, protocol)
    read = read_torch_file(path)
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_a_state_dict_with_its_metadata_comes_back(tmp_path):
    writer.save_state(tmp_path / "w.pth", ARRAYS)
    read = read_state(tmp_path / "w.pth")
    assert list(read) == list(ARRAYS)
    np.testing.assert_array_equal(read["conv.weight"], ARRAYS["conv.weight"])


def test_views_of_one_storage_come_out_right(tmp_path):
    numbers = RANDOM.normal(size=24).astype("float32")
    shared = writer.Storage(numbers)
    tensors = {
        "whole": writer.Tensor(shared, (4, 6), (6, 1)),
        "transposed": writer.Tensor(shared, (6, 4), (1, 6)),
        "part": writer.Tensor(shared, (2, 3), (12, 2), offset=7),
        "expanded": writer.Tensor(shared, (3, 2), (0, 1), offset=22),
        "scalar": writer.Tensor(shared, (), (), offset=23),
        "parameter": writer.Parameter(writer.Tensor(shared, (24,), (1,))),
    }
    writer.save(tmp_path / "w.pth", tensors)
    read = read_torch_file(tmp_path / "w.pth")
    matrix = numbers.reshape(4, 6)
    np.testing.assert_array_equal(read["whole"], matrix)
    np.testing.assert_array_equal(read["transposed"], matrix.T)
    part = [[7, 9, 11], [19, 21, 23]]
    np.testing.assert_array_equal(read["part"], numbers[part])
    np.testing.assert_array_equal(read["expanded"], [numbers[22:]] * 3)
    assert read["scalar"].shape == () and read["scalar"] == numbers[23]
    np.testing.assert_array_equal(read["parameter"], numbers)


def test_bfloat16_is_widened(tmp_path):
    values = np.array([1.0, -2.5, 3.0e38, 0.0, -np.inf], "float32")
    values = (values.view("uint32") & 0xFFFF0000).view("float32")
    stored = writer.Storage(writer.bfloat16_bits(values), "bfloat16")
    writer.save(tmp_path / "w.pth", {"b": writer.Tensor(stored, (5,), (1,))})
    read = read_torch_file(tmp_path / "w.pth")["b"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "best": 71.5, "model": state},
        lambda state: {"state_dict": state, "history": [1, (2, None)], "done": True},
        lambda state: collections.OrderedDict(model=state),
    ],
)
def test_checkpoints_are_unwrapped(tmp_path, wrap):
    state = {"module.fc.bias": writer.tensor_of(ARRAYS["double"])}
    writer.save(tmp_path / "w.pt", wrap(state))
    read = read_state(tmp_path / "w.pt")
    assert list(read) == ["fc.bias"]
    np.testing.assert_array_equal(read["fc.bias"], ARRAYS["double"])


def test_equals_torch_where_it_is_installed(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = {"a": base.t(), "b": base[1:, ::2], "c": base.to(torch.bfloat16)}
    saved["d"] = torch.nn.Parameter(base[0])
    torch.save(saved, tmp_path / "w.pth")
    read = read_torch_file(tmp_path / "w.pth")
    for name, tensor in torch.load(tmp_path / "w.pth", weights_only=True).items():
        np.testing.assert_array_equal(read[name], tensor.detach().float().numpy())


# ---- refusals


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Attributes:
    """Pickles as an object whose attributes are set."""

    def __init__(self):
        self.x = 1


def malicious():
    """(what the file asks for, its pickle)."""
    import os

    yield "calls posix.system", pickle.dumps({"a": Call(os.system, "true")}, 2)
    yield "calls builtins.eval", b"\x80\x02cbuiltins\neval\n."
    yield "calls builtins.exec", pickle.dumps(Call(exec, "raise SystemExit"), 4)
    yield "calls os.system", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."
    yield "instruction INST", b"(X\x04\x00\x00\x00truei__builtin__\neval\n."
    yield "instruction OBJ", b"\x80\x02(X\x04\x00\x00\x00trueX\x01\x00\x00\x00ao."
    yield "calls collections.Counter", b"\x80\x02ccollections\nCounter\n)\x81."
    yield "instruction NEWOBJ", b"\x80\x02ccollections\nOrderedDict\n)\x81."
    yield "instruction NEWOBJ_EX", b"\x80\x04)})\x92."
    yield "instruction EXT1", b"\x80\x02\x82\x01."
    yield "instruction PERSID", b"\x80\x02Pkey\n."
    yield "instruction GLOBAL|calls tests", pickle.dumps(Attributes(), 2)
    code = b"\x80\x02]}X\x08\x00\x00\x00__code__K\x01sb."
    yield r"sets attributes of an object \(BUILD\)", code
    yield "sets attributes", b"\x80\x02ccollections\nOrderedDict\n)RK\x01b."
    yield "calls torch.FloatStorage", b"\x80\x02ctorch\nFloatStorage\n)R."
    yield "calls argparse.Namespace", b"\x80\x02cargparse\nNamespace\n)\x81."


@pytest.mark.parametrize(("asks", "data"), list(malicious()))
def test_anything_but_weights_is_refused_by_name(tmp_path, monkeypatch, asks, data):
    executed = []
    monkeypatch.setattr("os.system", executed.append)
    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, executed.append)
    monkeypatch.setattr(pickle, "Unpickler", executed.append)
    writer.save_parts(tmp_path / "checkpoint.pth", data)
    try:
        with pytest.raises(UserError, match=f"checkpoint.pth' .*({asks})") as caught:
            read_torch_file(tmp_path / "checkpoint.pth")
    finally:
        monkeypatch.undo()
    assert not executed
    assert "which a file of weights has no need of: nothing was exec" in str(
        caught.value
    )


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK%ctQ"
)


def one_tensor(count=4, offset=b"K\x00", size=b"K\x04\x85", stride=b"K\x01\x85"):
    """A pickle of {"a": tensor} by hand: storage of `count`, offset, size, stride."""
    storage = STORAGE.replace(b"%c", bytes([count]))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + size + stride
    return b"\x80\x02}X\x01\x00\x00\x00a" + call + b"\x89}tRs."


def test_a_pickle_by_hand_is_read(tmp_path):
    numbers = np.arange(4, dtype="float32")
    writer.save_parts(tmp_path / "a.pth", one_tensor(), {"0": numbers.tobytes()})
    np.testing.assert_array_equal(read_state(tmp_path / "a.pth")["a"], numbers)


WRONG = {
    "reads number 4 of a storage of 4": dict(offset=b"K\x01"),
    "reads number 9 of a storage of 4": dict(stride=b"K\x03\x85"),
    "must be 0 or more": dict(offset=b"J\xff\xff\xff\xff"),
    "or more. Fetch": dict(stride=b"J\xff\xff\xff\xff\x85"),
    "not one stride for each side": dict(stride=b"K\x01K\x01\x86"),
    "record 'data/0' has 16 of 20 bytes": dict(count=5, size=b"K\x05\x85"),
    "cannot be read, TypeError": dict(size=b"K\x04"),
}


@pytest.mark.parametrize("message", WRONG)
def test_numbers_outside_the_file_are_refused(tmp_path, message):
    data = one_tensor(**WRONG[message])
    writer.save_parts(tmp_path / "a.pth", data, {"0": bytes(16)})
    with pytest.raises(UserError, match=f"no whole file of torch.save: .*{message}"):
        read_torch_file(tmp_path / "a.pth")


BROKEN = {
    "cut short": (one_tensor()[:-1], "cannot be read, ValueError"),
    "no opcode": (b"\x80\x02\xff.", "cannot be read, ValueError"),
    "empty stack": (b"\x80\x02.", "cannot be read, IndexError"),
    "empty memo": (b"\x80\x02h\x07.", "cannot be read, KeyError"),
    "no mark": (b"\x80\x02K\x01t.", "cannot be read, IndexError"),
    "too few": (b"\x80\x02K\x01\x86.", "cannot be read, IndexError"),
    "a key of no text": (b"\x80\x02}]K\x01s.", "cannot be read, TypeError"),
    "a call of nothing": (b"\x80\x02K\x01)R.", "cannot be read, TypeError"),
    "an item of no dict": (b"\x80\x02]K\x01K\x01s.", "cannot be read, TypeError"),
    "an odd item": (b"\x80\x02}(K\x01u.", "cannot be read, ValueError"),
    "no storage": (b"\x80\x02K\x01Q.", "cannot be read, TypeError"),
    "no kind": (one_tensor().replace(b"ctorch\nFloatStorage\n", b"K\x01"), "no kind"),
    "no key": (one_tensor().replace(b"X\x01\x00\x00\x000X", b"K\x01X"), "no key and"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_pickle_is_refused(tmp_path, what):
    data, message = BROKEN[what]
    writer.save_parts(tmp_path / "a.pth", data, {"0": bytes(16)})
    with pytest.raises(UserError, match=f"no whole file of .*{message}"):
        read_torch_file(tmp_path / "a.pth")


def test_every_truncated_pickle_is_refused(tmp_path):
    data = one_tensor()
    for length in range(len(data)):
        writer.save_parts(tmp_path / "a.pth", data[:length], {"0": bytes(16)})
        with pytest.raises(UserError, match="no whole file of torch.save"):
            read_torch_file(tmp_path / "a.pth")


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    writer.save_state(path, ARRAYS)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is no file of torch.save, or cut short"):
            read_torch_file(path)
    place = whole.index(ARRAYS["conv.weight"].tobytes())
    path.write_bytes(whole[:place] + b"\x55" + whole[place + 1 :])
    with pytest.raises(UserError, match="no whole file of torch.save: Bad CRC-32"):
        read_torch_file(path)


def test_other_archives_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "a")
    with pytest.raises(UserError, match="must have one record data.pkl, got 0"):
        read_torch_file(path)
    writer.save_parts(path, one_tensor(), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="'archive/data.pkl' is compressed"):
        read_torch_file(path)
    writer.save_parts(path, one_tensor())
    with pytest.raises(UserError, match="it lacks the record 'archive/data/0'"):
        read_torch_file(path)
    writer.save_parts(path, one_tensor(), more={"byteorder": "big"})
    with pytest.raises(UserError, match="must be little-endian, got byte order b'big'"):
        read_torch_file(path)
    writer.save_parts(path, one_tensor(), {"0": bytes(16)}, {"byteorder": "little"})
    assert read_torch_file(path)["a"].shape == (4,)


def test_files_of_no_weights_are_refused(tmp_path):
    for value in ([1, 2], {}, {"net": {"a": 1}}, {1: writer.tensor_of(np.ones(2))}):
        writer.save(tmp_path / "a.pth", value)
        with pytest.raises(
            UserError, match="must hold tensors by name, alone or as 'm"
        ):
            read_state(tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"read from .pth, .pt, .*got '.*a.ckpt'"):
        read_state(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="No file of PyTorch weights at '.*none.pth'"):
        read_state(tmp_path / "none.pth")
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="is no whole .npz file of arrays"):
        read_state(tmp_path / "a.npz")
