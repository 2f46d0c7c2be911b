"""The finished pieces of every chapter: `from exp.nb_02 import *`. All but this file is exported from `nbs/`."""


def __getattr__(name):
    "Look the version up when somebody asks for it: importing the package reads no file."
    if name == "__version__":
        from importlib.metadata import version

        return version("training-refactored")
    raise AttributeError(name)
