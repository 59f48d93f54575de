"""Installs the library: `pip install .`, with extras for what is optional."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

# The lowest versions are those of `make test-lowest`; that of torch is not verified, as test-lowest and test-newest
# take the pinned CPU build. The newest transformers that passed is 5.24, whose own adapter methods need PEFT 0.22, not
# released yet (see adapters/peft/older_peft.py).

WANDB = ["wandb>=0.22"]
TENSORBOARD = ["tensorboard>=2.18"]
PEFT = ["peft>=0.21.2"]  # earlier ones let frozen cores train, or call a method that transformers' T5 no longer has
BENCHMARK = [*PEFT, "tensorly-torch>=0.5"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=1"]
NOTEBOOK = ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"]
SWIPE = ["wordfreq>=3.1"]
WEB = ["starlette>=0.45", "uvicorn>=0.34"]
ONNX = ["onnx>=1.18", "onnxruntime>=1.22"]
SLURM = ["submitit>=1.5"]
QUANTIZED = ["bitsandbytes>=0.50", "torchao>=0.18"]
TRL = ["trl>=1.14"]
DEVELOP = [
    "httpx>=0.28",  # of Starlette's test client
    "hypothesis>=6.100",
    "psutil>=7",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "scipy>=1.14",
    "selenium>=4.30",
    "tensorly>=0.9",
]

ROOT = Path(__file__).resolve().parent
PROJECT_FOLDERS = {"assets": ["small_world/**/*", "small_decoder/**/*"], "configs": ["**/*.json", "**/*.md"]}
"""Folders of the project that a wheel has as seq2seq/<folder>, and the files in them."""

setup(
    name="tensorized-adapters",
    version=runpy.run_path(str(ROOT / "t3nsor" / "version.py"))["__version__"],
    description="Small tensor networks trained inside a frozen transformer, merged into its weights for evaluation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["t3nsor*", "adapters*", "third_party*", "seq2seq*"]),
        *(f"seq2seq.{folder}" for folder in PROJECT_FOLDERS),
    ],
    package_dir={f"seq2seq.{folder}": folder for folder in PROJECT_FOLDERS},
    package_data={
        "seq2seq.report": ["templates/*.jinja"],
        "seq2seq.swipe.keyboards": ["files/*.json"],
        "seq2seq.swipe.serve": ["page/*"],
        "seq2seq.swipe.traces": ["*.json"],
        **{f"seq2seq.{folder}": files for folder, files in PROJECT_FOLDERS.items()},
    },
    py_modules=["run_seq2seq"],
    entry_points={"console_scripts": ["seq2seq-run = run_seq2seq:main"]},
    install_requires=[
        "accelerate>=1.7",  # earlier ones resume within an epoch with other random numbers
        "datasets>=4.8",  # earlier ones do not read their cache without network
        "evaluate>=0.4.4",
        "filelock>=4.1",  # before it, a process that waits empties the file that names the owner
        "huggingface_hub>=1.31",
        "jinja2>=3.1.5",  # as pandas demands of it for tables in LaTeX
        "matplotlib>=3.10.7",
        "numpy>=2",  # the newest pyarrow, on which datasets rests, needs it
        "omegaconf>=2.3",
        "pandas>=2.2.2",
        "protobuf>=4.25",
        "pydantic>=2.9",
        "rich>=13.8",
        "safetensors>=0.8",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "sentencepiece>=0.2",
        "torch>=2.6",
        "tqdm>=4.66.3",
        "transformers>=5.20,<6",  # Trainer.loss_is_scaled_for_ga, on which exact accumulation rests, came with 5.20
    ],
    extras_require={
        "wandb": WANDB,
        "tensorboard": TENSORBOARD,
        "peft": PEFT,
        "benchmark": BENCHMARK,
        "notebook": NOTEBOOK,
        "docs": DOCS,
        "swipe": SWIPE,
        "web": [*SWIPE, *WEB],
        "onnx": ONNX,
        "slurm": SLURM,
        "develop": [
            *(*WANDB, *TENSORBOARD, *PEFT, *NOTEBOOK, *DOCS, *SWIPE, *WEB, *ONNX, *SLURM),
            *(*QUANTIZED, *TRL, *DEVELOP),
        ],
    },
)
