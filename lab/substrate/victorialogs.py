"""Step victorialogs: the log store's programs, built of Debian 13's source package, because Debian packs only their sibling for metrics.

A firm gives the role `log_store` the archives of their own releases instead; the programs are the same.
"""

from .images import MIRROR, REPOSITORY, container, recipe_of
from .steps import CACHE, StepError, digest, fresh_directory, run, say

DIRECTORY = CACHE / "victorialogs"
PROGRAMS = {name: DIRECTORY / name for name in ("victoria-logs", "vmalert")}
"""The store itself, and what makes alerts of what it holds."""
STAMP = ".recipe"
SUITE = "trixie"
SOURCE = "victoriametrics"

# GOPATH in place of modules: Debian's packages of libraries in Go are sources below /usr/share/gocode, and nothing is downloaded.
# The build flag is what `-version` prints, and the metric vm_app_version: the program's name and its release.
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
for program in $PROGRAMS; do
  flags="-s -w -X github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version=$program-debian-v${version%%+*}"
  GO111MODULE=off GOFLAGS=-p=2 GOPATH=/gopath:/usr/share/gocode go build -trimpath -ldflags "$flags" -o "/build/$program" "./app/$program"
done
for program in $PROGRAMS; do "/build/$program" -version; done
"""


def prepare() -> str | None:
    """Build the programs once, in a container of the bare host's image."""
    image = recipe_of(SUITE)
    if not image:
        raise StepError("there is no image of a bare host: run 'python3 lab/prepare.py images' first")
    # The image's recipe is left out: what is built does not depend on it, and a new image must not cost ten minutes.
    recipe = digest(SCRIPT, SUITE, SOURCE, *PROGRAMS)
    if (DIRECTORY / STAMP).is_file() and (DIRECTORY / STAMP).read_text() == recipe:
        return None
    with fresh_directory(DIRECTORY, STAMP) as directory, container("victorialogs", f"{REPOSITORY}:{SUITE}") as name:
        say(f"building {' and '.join(PROGRAMS)} of Debian's {SOURCE}")
        versions = _build(name)
        for program in PROGRAMS:
            run(["docker", "cp", f"{name}:/build/{program}", directory / program])
        (directory / STAMP).write_text(recipe)
    size = sum(program.stat().st_size for program in PROGRAMS.values())
    return f"{', '.join(versions)}, {size / 1e6:.0f} MB, in {DIRECTORY}"


def _build(name: str) -> list[str]:
    """Build in the container and return the versions that the programs tell.

    Args:
        name: The container.

    Raises:
        StepError: A program does not tell the name and the release that it was built with.
    """
    settings = {"MIRROR": MIRROR, "SUITE": SUITE, "SOURCE": SOURCE, "PROGRAMS": " ".join(PROGRAMS)}
    variables = [word for key, value in settings.items() for word in ("--env", f"{key}={value}")]
    said = run(["docker", "exec", "--interactive", *variables, name, "sh"], stdin=SCRIPT, timeout=3600)
    versions = said.strip().splitlines()[-len(PROGRAMS) :]
    for program, version in zip(PROGRAMS, versions, strict=True):
        if not version.startswith(f"{program}-debian-v"):
            raise StepError(f"{program} -version says {version!r}: it was not built as wanted")
    return versions
