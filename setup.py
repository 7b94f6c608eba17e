from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = (
    "check",
    "merge",
    "plan_and_preprocess",
    "train",
    "train_ensemble",
    "find_best_configuration",
    "predict",
    "evaluate",
    "overlay",
    "report",
    "run",
    "networks",
    "demo",
)

setup(
    name="autoseg",
    version="0.1.0",
    description="Segments organs in 3D medical images and configures itself",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["autoseg", "autoseg.*"]),
    package_data={"autoseg.report": ["templates/*"]},
    install_requires=[
        "torch>=2.10",
        "typing_extensions>=4.10",
        "numpy>=1.26",
        "scipy>=1.11",
        "SimpleITK>=2.3",
        "pydicom>=3.0",
        "batchgenerators>=0.25",
        "acvl-utils>=0.2.3",
        "blosc2>=4.14",
        "scikit-image>=0.22",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "tqdm>=4.66",
        "shtab>=1.9",
    ],
    extras_require={"test": ["pytest>=8", "hypothesis>=6.100", "surface-distance>=0.1"]},
    entry_points={
        "console_scripts": ["autoseg = autoseg.cli:main", *(f"autoseg_{name} = autoseg.cli:{name}" for name in COMMANDS)],
    },
)
