"""Everything is declared in setup.cfg; this file is where the C extension will go."""

from setuptools import setup

setup()
