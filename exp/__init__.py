"""The finished pieces of every chapter: `from exp.nb_02 import *`. All but this file is exported from `nbs/`."""

from importlib.metadata import version

__version__ = version("training-refactored")
