"""Read settings.ini, the one place where the project's values stand, and hand them to setuptools."""

import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
lab = settings["lab_requirements"].split()
dev = lab + settings["dev_requirements"].split()

setup(
    name=settings["name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license_expression=f"{settings['license']} AND {settings['data_license']}",
    license_files=["LICENSE", "exp/data/*/LICENSE", "exp/data/*/README.md"],
    url=settings["repository"] or None,
    python_requires=">=" + settings["min_python"],
    install_requires=settings["requirements"].split(),
    extras_require={"lab": lab, "dev": dev, "fuzz": dev + settings["fuzz_requirements"].split()},
    # Where the checkout itself is installed, its tools are too: nbdev asks them how to export.
    packages=["exp", "tools"] if "editable_wheel" in sys.argv else ["exp"],
    package_data={"exp": ["data/*/*"]},
    zip_safe=False,
)
