"The package, described by settings.ini: requirements, versions and commands are read from there."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here/"settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

_oldest = int(cfg["min_python"].split(".")[1])
_pythons = [f"Programming Language :: Python :: 3.{minor}" for minor in range(_oldest, 14)]
_names = ("train", "faiss", "app", "heic", "postgres", "parquet", "shards", "ray", "serve")
_extras = {k: cfg[f"{k}_requirements"].split() for k in _names}
_dev = sum((v for k, v in _extras.items() if k != "heic"), cfg["dev_requirements"].split())
_scripts = re.findall(r"\S+=\S+", cfg["console_scripts"])

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=["Intended Audience :: Developers", "Topic :: Scientific/Engineering :: Image Recognition", *_pythons],
    python_requires=">=" + cfg["min_python"],
    packages=find_packages(include=["facerec_nb", "facerec_nb.*"]),
    include_package_data=True,
    package_data={"facerec_nb": ["weights/*", "fonts/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": _dev, **_extras},
    entry_points={"console_scripts": _scripts, "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    zip_safe=False,
)
