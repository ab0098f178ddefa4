#!/usr/bin/env python3
"""Prepare what the lab runs on: Docker, the Python environment, host images, vLLM's wheels, a tiny model.

Runs before anything else exists, so it needs the standard library only.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (an older Python must get an answer, not a traceback)
    sys.exit(f"lab/prepare.py needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable}).")

import argparse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file, this one sees only its own directory

from lab.standins.dify import build as dify
from lab.substrate import docker, images, model, search_engine, venv, victorialogs, vllm_image, wheelhouse
from lab.substrate.steps import Step, run_steps

STEPS: dict[str, Step] = {
    "docker": Step("a Docker daemon answers, and the tools to make images are there", docker.prepare),
    "venv": Step("the Python environment .venv, from requirements-dev.txt", venv.prepare),
    "images": Step("host images of Debian 13 and 12, bare and with the roles' packages", images.prepare),
    "victorialogs": Step("VictoriaLogs and vmalert, built of Debian's source package", victorialogs.prepare),
    "search_engine": Step("a stand-in for the Elasticsearch of a firm, for tests of what ships logs", search_engine.prepare),
    "wheelhouse": Step("vLLM's CPU build and its wheels, for an install without a network", wheelhouse.prepare),
    "dify": Step("a stand-in for Dify's images, unless LAB_DIFY_IMAGES names others", dify.prepare),
    "model": Step("a tiny random Llama checkpoint, plain and quantised", model.prepare),
    "vllm": Step("a host image on which the role has installed vLLM", vllm_image.prepare),
}


def main() -> int:
    """Parse the command line, run the wanted steps in order and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "steps",
        nargs="*",
        metavar="step",
        help=f"any of {', '.join(STEPS)}, or all (the default)",
    )
    wanted = parser.parse_args().steps or ["all"]
    unknown = [name for name in wanted if name not in (*STEPS, "all")]
    if unknown:
        parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)} and all")
    return run_steps({name: step for name, step in STEPS.items() if name in wanted or "all" in wanted})


if __name__ == "__main__":
    sys.exit(main())
