"""Step victorialogs: the log store's program, built of Debian 13's source package, because Debian packs only its sibling for metrics.

A firm gives the role `log_store` the archive of VictoriaLogs' own release instead; the program is the same.
"""

from .images import MIRROR, REPOSITORY, container, recipe_of
from .steps import CACHE, StepError, digest, fresh_directory, run, say

DIRECTORY = CACHE / "victorialogs"
PROGRAM = DIRECTORY / "victoria-logs"
STAMP = ".recipe"
SUITE = "trixie"
SOURCE = "victoriametrics"

# GOPATH in place of modules: Debian's packages of libraries in Go are sources below /usr/share/gocode, and nothing is downloaded.
# The build flag is what `-version` prints, and the metric vm_app_version.
SCRIPT = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
echo "deb-src $MIRROR $SUITE main" > /etc/apt/sources.list.d/source.list
apt-get update -q
mkdir -p /build && cd /build
apt-get install -q -y --no-install-recommends dpkg-dev
apt-get build-dep -q -y --no-install-recommends "$SOURCE"
apt-get source -q "$SOURCE"
cd /build/"$SOURCE"-*/
version=$(dpkg-parsechangelog --show-field Version)
mkdir -p /gopath/src/github.com/VictoriaMetrics
ln -s "$PWD" /gopath/src/github.com/VictoriaMetrics/VictoriaMetrics
cd /gopath/src/github.com/VictoriaMetrics/VictoriaMetrics
flags="-s -w -X github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version=victoria-logs-debian-v${version%%+*}"
GO111MODULE=off GOFLAGS=-p=2 GOPATH=/gopath:/usr/share/gocode go build -trimpath -ldflags "$flags" -o /build/victoria-logs ./app/victoria-logs
/build/victoria-logs -version
"""


def prepare() -> str | None:
    """Build the program once, in a container of the bare host's image."""
    image = recipe_of(SUITE)
    if not image:
        raise StepError("there is no image of a bare host: run 'python3 lab/prepare.py images' first")
    # The image's recipe is left out: what is built does not depend on it, and a new image must not cost ten minutes.
    recipe = digest(SCRIPT, SUITE, SOURCE)
    if (DIRECTORY / STAMP).is_file() and (DIRECTORY / STAMP).read_text() == recipe:
        return None
    with fresh_directory(DIRECTORY, STAMP) as directory, container("victorialogs", f"{REPOSITORY}:{SUITE}") as name:
        say(f"building VictoriaLogs of Debian's {SOURCE}")
        version = _build(name)
        run(["docker", "cp", f"{name}:/build/victoria-logs", directory / PROGRAM.name])
        (directory / STAMP).write_text(recipe)
    return f"{version}, {PROGRAM.stat().st_size / 1e6:.0f} MB, in {PROGRAM}"


def _build(name: str) -> str:
    """Build in the container and return the version that the program tells."""
    settings = {"MIRROR": MIRROR, "SUITE": SUITE, "SOURCE": SOURCE}
    variables = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
    said = run(["docker", "exec", "--interactive", *variables, name, "sh"], stdin=SCRIPT, timeout=3600)
    return said.strip().splitlines()[-1]
