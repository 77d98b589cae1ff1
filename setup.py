"""Installs flagfiles and published figures in the package; the rest: pyproject.toml."""

from setuptools import find_packages, setup

DATA = {"tf_mskd.configs": "configs", "tf_mskd.results": "results"}

setup(
    packages=[*find_packages(include=["tf_mskd", "tf_mskd.*"]), *DATA],
    package_dir=DATA,
    package_data={
        "tf_mskd": ["py.typed", "data/pictures/*"],
        "tf_mskd.configs": ["**/*.flags", "*.md"],
        "tf_mskd.results": ["published.csv"],
    },
)
