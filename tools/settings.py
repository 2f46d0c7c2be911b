"""Read settings.ini, the one place where the project's values stand. Plain Python that old versions parse, too."""

import configparser
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(root=ROOT):
    "Return the values of settings.ini as a mapping of strings."
    config = configparser.ConfigParser()
    config.read(os.path.join(str(root), "settings.ini"), encoding="utf-8")
    return config["DEFAULT"]
