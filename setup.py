"""Installs configs/ as tf_mskd/configs; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tf_mskd", "tf_mskd.*"]), "tf_mskd.configs"],
    package_dir={"tf_mskd.configs": "configs"},
    package_data={"tf_mskd": ["py.typed"], "tf_mskd.configs": ["**/*.flags", "*.md"]},
)
