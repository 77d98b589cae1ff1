"""Files of safetensors: equal arrays, and every refusal."""

import json

import numpy as np
import pytest

from tests.models import torch_writer as writer
from tf_mskd.models.safetensors_file import read_safetensors
from tf_mskd.models.state_files import read_state
from tf_mskd.utils.errors import UserError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RANDOM.normal(size=(4, 3, 3, 3)).astype("float32"),
    "double": RANDOM.normal(size=(5,)),
    "half": RANDOM.normal(size=(2, 3)).astype("float16"),
    "tracked": np.array(2**40),
    "empty": np.zeros((0, 3), "float32"),
}


def test_arrays_of_every_kind_come_back(tmp_path):
    writer.save_safetensors(tmp_path / "w.safetensors", ARRAYS)
    read = read_state(tmp_path / "w.safetensors")
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_bfloat16_is_widened(tmp_path):
    values = np.array([[1.0, -2.5], [0.0, np.inf]], "float32")
    bits = {"b": writer.bfloat16_bits(values)}
    writer.save_safetensors(tmp_path / "w.safetensors", bits)
    np.testing.assert_array_equal(
        read_safetensors(tmp_path / "w.safetensors")["b"], values
    )


def spoil(name, **entries):
    return lambda table: table[name].update(entries)


SPOILED = {
    "'half' starts at byte 468, not at 472": spoil("half", data_offsets=[468, 480]),
    "'half' starts at byte 476, not at 472": spoil("half", data_offsets=[476, 488]),
    "'half' has 400 bytes, its shape takes 12": spoil("half", data_offsets=[472, 872]),
    "'half' has -12 bytes": spoil("half", data_offsets=[484, 472]),
    "'half' has 12 bytes, its shape takes 16": spoil("half", shape=[2, 4]),
    "offsets of 'half' must be lists": spoil("half", shape=[2, -3]),
    "and offsets of 'half' must": spoil("half", shape="ab"),
    "shape and offsets of 'half'": spoil("half", data_offsets=[472]),
    "of 'half' must be lists of numbers": spoil("half", data_offsets=[472.0, 484.0]),
    "its arrays take 484 bytes, the file has 492": lambda t: t.pop("tracked"),
    "'half' has no dtype": lambda table: table.update(half=3),
    "'double' has no dtype": spoil("double", dtype=["F32"]),
}


@pytest.mark.parametrize("message", SPOILED)
def test_a_table_that_does_not_fit_is_refused(tmp_path, message):
    arrays = {name: array for name, array in ARRAYS.items() if name != "empty"}
    writer.save_safetensors(tmp_path / "w.safetensors", arrays, SPOILED[message])
    with pytest.raises(UserError, match=f"is no whole .safetensors file: .*{message}"):
        read_safetensors(tmp_path / "w.safetensors")


def test_an_unknown_dtype_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    writer.save_safetensors(path, ARRAYS, spoil("half", dtype="F8_E4M3"))
    with pytest.raises(UserError, match="Unknown dtype in '.*' 'F8_E4M3'.*F16"):
        read_safetensors(path)


def test_every_truncated_file_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    writer.save_safetensors(path, ARRAYS)
    for length in range(path.stat().st_size):
        writer.save_safetensors(path, ARRAYS, cut=length)
        with pytest.raises(UserError, match="is no whole .safetensors file"):
            read_safetensors(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "its header is no JSON object"),
        (b"{,}", "Expecting property name"),
        (b'{"a": 1, "a": 2}', "names an array twice"),
        (b"\xff", "can't decode"),
        (b"[" * 100_000, "recursion depth"),
    ],
)
def test_other_headers_are_refused(tmp_path, header, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=message):
        read_safetensors(path)
    path.write_bytes((2**63).to_bytes(8, "little") + json.dumps({}).encode())
    with pytest.raises(UserError, match="header of 9223372036854775808 bytes does not"):
        read_safetensors(path)
