"""The finished pieces of every chapter: `from exp.nb_02 import *` gives those of chapter 02 and of all before it.

    nb_00   The workbench
    nb_01   Data
    nb_02   Mini-batch training
    nb_03   Backpropagation: what loss.backward() does
    nb_04   Validation, the Learner and callbacks
    nb_05   Optimisers and schedules
    nb_06   Initialisation, activations, normalisation
    nb_07   Convolutions
    nb_08   Depth and augmentation
    nb_09   Runs that survive
    nb_10   Feeding the loop
    nb_11   Speed
    nb_12   Many processes
    nb_13   Debugging
    nb_14   The exam
    nb_15   The same loop writes

All but this file is exported from `nbs/`; the export also keeps this map. A module stands on those with lower numbers.
"""


def __getattr__(name):
    "Look the version up when somebody asks for it: importing the package reads no file."
    if name == "__version__":
        from importlib.metadata import packages_distributions, version

        return version(packages_distributions()[__name__][0])
    raise AttributeError(name)
