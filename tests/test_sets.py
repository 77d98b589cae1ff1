"""The three sets of tests are what they say: see conftest.py."""

import multiprocessing
import subprocess
import sys

import pytest

from tf_mskd.runs import experiment

REFUSED = "mark the test `run` or `slow`"


def test_an_unmarked_test_starts_no_process():
    with pytest.raises(pytest.fail.Exception, match=REFUSED):
        subprocess.run([sys.executable, "-c", ""])
    with pytest.raises(pytest.fail.Exception, match=REFUSED):
        multiprocessing.get_context("spawn").Process(target=print).start()


def test_an_unmarked_test_starts_no_run():
    with pytest.raises(pytest.fail.Exception, match=REFUSED):
        experiment.run(None)


@pytest.mark.run
def test_a_marked_one_may():
    assert subprocess.run([sys.executable, "-c", "exit(3)"]).returncode == 3
