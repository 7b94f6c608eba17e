import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
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
EXTRAS = {
    "test": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "surface-distance>=0.1"],
    "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "nbconvert>=7.16", "ruff>=0.6"],
    "notebook": ["ipykernel>=6.29", "nbclient>=0.10", "pandas>=2.2"],
}


def version() -> str:
    return re.findall(r'^__version__ = "(.+)"$', (ROOT / "autoseg" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)[0]


def description() -> str:
    """README.md without its links to files beside it, which lead nowhere from the page of an index."""
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", (ROOT / "README.md").read_text(encoding="utf-8"))


setup(
    name="autoseg",
    version=version(),
    description="Segments organs in 3D medical images and configures itself",
    long_description=description(),
    long_description_content_type="text/markdown",
    author="The autoseg maintainers",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["segmentation", "medical imaging", "CT", "MRI", "DICOM", "NIfTI", "U-Net", "nnU-Net", "deep learning"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    # The project's own pages are not listed: it has no public address yet.
    project_urls={"Rules that it follows (nnU-Net)": "https://doi.org/10.1038/s41592-020-01008-z"},
    python_requires=">=3.11",
    packages=find_packages(include=["autoseg", "autoseg.*"]),
    package_data={"autoseg": ["py.typed"], "autoseg.networks": ["*.c", "*.h"], "autoseg.report": ["templates/*"]},
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
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["autoseg = autoseg.cli:main", *(f"autoseg_{name} = autoseg.cli:{name}" for name in COMMANDS)],
    },
)
