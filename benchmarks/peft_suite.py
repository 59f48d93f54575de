"""Run PEFT's own test-suite on our tuner.

    python -m benchmarks.peft_suite                              all of FILES, about ten minutes on one core
    python -m benchmarks.peft_suite test_config                  one file
    python -m benchmarks.peft_suite --work /tmp/peft_suite       where the downloads are kept

The tests come from the sdist of the PEFT that is installed, two packages that they import from wheels; both are
downloaded once, and nothing is installed. ``benchmarks.peft_suite_cases`` says what of the suite runs, and what cannot.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.contraction_tables import line

FILES = (
    *("test_custom_models", "test_decoder_models", "test_encoder_decoder_models", "test_seq_classifier"),
    *("test_feature_extraction_models", "test_config", "test_low_level_api", "test_initialization"),
)
IMPORTED = ("diffusers", "parameterized")
"""Packages that the tests import, but of which they use nothing here."""
PROJECT = Path(__file__).resolve().parent.parent
RESULT = "result.xml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite, print the table, and return the exit status of pytest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", default=FILES, help="files of tests; by default all")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "peft_suite")
    options = parser.parse_args(arguments)
    folder = unpacked(options.work.resolve())
    status = run(folder, options.files)
    print(report(folder / RESULT))
    return status


def unpacked(work: Path) -> Path:
    """Return the folder of the tests, which are downloaded if they are not there."""
    folder = work / f"peft-{version('peft')}"
    if not (folder / "tests").exists():
        sources, wheels = work / "sources", work / "wheels"
        download(sources, "--no-binary", ":all:", f"peft=={version('peft')}")
        download(wheels, "--only-binary", ":all:", *IMPORTED)
        with tarfile.open(next(sources.glob(f"{folder.name}.tar.gz"))) as archive:
            archive.extractall(work / "sdist", filter="data")
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(work / "site")
        shutil.copytree(work / "sdist" / folder.name / "tests", folder / "tests")
        (folder / "tests" / "__init__.py").touch()
    return folder


def download(folder: Path, *what: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *what], check=True)


def run(folder: Path, files: Sequence[str]) -> int:
    """Run pytest in ``folder``, offline, and return its exit status."""
    path = os.pathsep.join(map(str, (PROJECT, folder.parent / "site", folder)))
    own_options = ("-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "-p", "no:xdist")  # not the project's
    options = ("-p", "benchmarks.peft_suite_cases", "-q", "--tb=short", f"--junitxml={RESULT}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *own_options, *options, *(f"tests/{file}.py" for file in files)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    ).returncode


def report(result: Path) -> str:
    """Return the counts of each file, and the reasons of the tests that did not run, as Markdown."""
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for case in ElementTree.parse(result).iter("testcase"):
        outcome = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        name = "passed" if outcome is None else "skipped" if outcome.tag == "skipped" else "failed"
        module = case.get("classname") or case.get("name")  # a file that cannot be imported has no classes
        counts.setdefault(module.split(".")[1], Counter())[name] += 1
        if name == "skipped":
            reasons[outcome.get("message", "")] += 1
    counts["all"] = sum(counts.values(), Counter())
    names = ("passed", "failed", "skipped")
    rows = [("file", *names), ("---",) * 4]
    rows += [(file, *(str(of_file[name]) for name in names)) for file, of_file in counts.items()]
    why = [("skipped", "why"), ("---",) * 2, *((str(count), reason) for reason, count in reasons.most_common())]
    return "\n".join([*map(line, rows), "", *map(line, why)])


if __name__ == "__main__":
    sys.exit(main())
