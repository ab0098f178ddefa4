"""Step images: what a host of the lab is before any role has touched it, as container images.

Seven tags: `sovereign-dify-lab:trixie` and `:bookworm` are bare hosts; with `-packages` they also carry the roles'
packages, `:trixie-data` those of the data services, too, and `:trixie-gpu` a kernel and what builds modules for it: installed but
with every service disabled, so that a converge spends no time on unpacking. On top of `:trixie-packages`, `:trixie-browser` carries a browser.
An eighth, `:bookworm-vllm`, is step vllm's.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import docker
from .steps import CACHE, LAB, StepError, digest, run, say
from .venv import VENV

REPOSITORY = "sovereign-dify-lab"
RECIPE_LABEL = "sovereign.dify.recipe"
PROGRAM = LAB / "image" / "recipe.py"
SUITES = ("trixie", "bookworm")
MIRROR = os.environ.get("LAB_DEBIAN_MIRROR") or "http://deb.debian.org/debian"
SECURITY_MIRROR = os.environ.get("LAB_DEBIAN_SECURITY_MIRROR") or "http://security.debian.org/debian-security"

# A bare host: what a minimal Debian installation and Ansible need, and nothing that a role installs.
BASE_PACKAGES = [
    *("acl", "ca-certificates", "curl", "dbus", "iproute2", "iputils-ping", "kmod", "less", "netbase"),
    *("openssh-server", "procps", "psmisc", "python3", "python3-apt", "sudo", "systemd", "systemd-sysv", "tzdata"),
]

# Baked into the -packages images. One entry a role, so that it stays plain why a package is here.
ROLE_PACKAGES: dict[str, list[str]] = {
    "baseline": ["chrony", "jq", "openssl", "rsync"],
    "pki": ["python3-cryptography", "ssl-cert"],
    "firewall": ["nftables"],
    "wireguard": ["wireguard-go", "wireguard-tools"],
    "service_proxy, model_gateway": ["haproxy"],
    "nginx": ["libnginx-mod-http-set-misc", "nginx"],
    "keepalived": ["keepalived"],
    "vllm": ["libnuma1", "python3-venv"],
    "exporters": ["mtail", "prometheus-nginx-exporter", "prometheus-node-exporter"],
    "prometheus": ["prometheus"],
    "alertmanager": ["prometheus-alertmanager"],
    "log_shipper": ["rsyslog", "rsyslog-elasticsearch"],
}
# Baked into the -data image, of the one suite whose releases the data roles support.
DATA_PACKAGES: dict[str, list[str]] = {
    "etcd": ["etcd-client", "etcd-server"],
    "patroni": ["patroni", "pgbackrest", "postgresql-17", "postgresql-17-pgvector", "python3-etcd", "python3-psycopg2"],
    "pgbouncer": ["pgbouncer"],
    "pgpool": ["pgpool2"],
    "redis": ["redis-sentinel", "redis-server", "redis-tools"],
    "rabbitmq": ["rabbitmq-server"],
    "object_storage": ["libisal2", "python3-boto3", "rsync", "swift-account", "swift-container", "swift-object", "swift-proxy"],
    "container_engine": ["conmon", "crun", "netavark", "podman"],
    "dify": ["python3-amqp"],
    "exporters": ["prometheus-pgbouncer-exporter", "prometheus-postgres-exporter", "prometheus-redis-exporter"],
    "drills": ["python3-boto3", "python3-pika", "python3-psycopg2", "python3-redis"],
}
# Baked into the -gpu image: a kernel of the distribution, its headers, and what builds modules for it, though no lab host boots it.
GPU_PACKAGES: dict[str, list[str]] = {
    "nvidia_driver": ["dkms", "gcc", f"linux-headers-cloud-{'arm64' if platform.machine() == 'aarch64' else 'amd64'}"],
}
# Baked into the -browser image: what opens a page as its readers do, and a program's way to tell it what to do (the DevTools protocol).
BROWSER_PACKAGES: dict[str, list[str]] = {
    "status_page": ["chromium", "fonts-dejavu-core", "python3-websocket"],
}
# What each suite's images carry, each made from the one that it names; "" is the bare host.
LAYERS = {
    "trixie": {
        "packages": ("", ROLE_PACKAGES),
        "data": ("packages", DATA_PACKAGES),
        "gpu": ("data", GPU_PACKAGES),
        "browser": ("packages", BROWSER_PACKAGES),
    },
    "bookworm": {"packages": ("", ROLE_PACKAGES)},
}

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
CA_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")


def prepare() -> str | None:
    """Build the images whose recipe has changed, both suites at the same time."""
    if not docker.answers():
        raise StepError("no Docker daemon answers: run 'python3 lab/prepare.py docker' first")
    with ThreadPoolExecutor(len(SUITES)) as pool:
        built = [tag for tags in pool.map(_prepare_suite, SUITES) for tag in tags]
    if not built:
        return None
    # What the new images replaced, as far as no container runs on it: half a gigabyte each.
    run(["docker", "image", "prune", "--force", "--filter", f"label={RECIPE_LABEL}"])
    return f"built {', '.join(built)}"


def _prepare_suite(suite: str) -> list[str]:
    """Build the bare image and then those with packages, each only where its recipe has changed."""
    certificates = outer_certificates()
    proxies = {name: value for name in PROXY_VARIABLES if (value := _either_case(name))}
    source = os.environ.get(f"LAB_BASE_IMAGE_{suite.upper()}", "")
    surroundings = [source, MIRROR, SECURITY_MIRROR, *certificates, *(f"{k}={v}" for k, v in proxies.items())]
    built = []

    program, files = PROGRAM.read_text(), faster_modules()
    recipe = digest(suite, program, *(word for pair in sorted(files.items()) for word in pair), *BASE_PACKAGES, *surroundings)
    if recipe_of(suite) != recipe:
        say(f"{suite}: making a bare host from {source or 'packages'}")
        settings = {
            "packages": BASE_PACKAGES,
            "sources": source_lines(suite),
            "certificates": {f"outer-{digest(pem)[:12]}": pem for pem in certificates},
            "proxies": proxies,
            "files": files,
        }
        with container(suite, source or _root_from_packages(suite)) as name:
            if source:
                _install_python(name, suite, proxies)
            _make(name, "bare", settings, suite, recipe)
        built.append(suite)

    recipes = {"": recipe}
    for layer, (below, roles) in LAYERS[suite].items():
        tag = f"{suite}-{layer}"
        packages = sorted({package for packages in roles.values() for package in packages})
        recipes[layer] = digest(recipes[below], *packages)
        if recipe_of(tag) != recipes[layer]:
            say(f"{suite}: adding the packages of {', '.join(roles)}")
            with container(tag, f"{REPOSITORY}:{suite}-{below}".removesuffix("-")) as name:
                _make(name, "packages", {"packages": packages, "proxies": proxies}, tag, recipes[layer])
            built.append(tag)
    return built


def faster_modules() -> dict[str, str]:
    """Return what makes Ansible's modules run faster in a host: texts by the path of their file in it."""
    files = {
        "/usr/lib/python3/dist-packages/lab_modules.py": (LAB / "image" / "lab_modules.py").read_text(),
        "/usr/lib/python3/dist-packages/lab_modules.pth": "import lab_modules\n",
        "/usr/local/bin/lab-python3": (LAB / "image" / "lab_python3").read_text(),
        "/usr/local/lib/lab/lab_python.py": (LAB / "image" / "lab_python.py").read_text(),
    }
    found = next(VENV.glob("lib/python*/site-packages/ansible/release.py"), None)
    if not found:
        raise StepError("there is no Ansible in .venv: run 'python3 lab/prepare.py venv' first")
    release = re.search(r"^__version__ = '(\S+)'$", found.read_text(), re.MULTILINE)
    if not release:
        raise StepError(f"{found} names no release")
    copy = Path("/usr/local/lib/lab/ansible-core/ansible")
    files[f"{copy}/__init__.py"] = f'__version__ = "{release[1]}"\n'
    for path in sorted(found.parent.glob("module_utils/**/*.py")):
        files[str(copy / path.relative_to(found.parent))] = path.read_text()
    return files


def outer_certificates() -> list[str]:
    """Return the PEM certificates that this machine trusts beyond the distribution's own.

    A firm's proxy that re-signs TLS is known here by its CA only; without it nothing inside a host could use https.
    They go into the images on this machine, and into nothing that is shared.
    """
    own = _certificates(Path("/usr/share/ca-certificates").glob("**/*.crt"))
    trusted = _certificates(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))
    if own:  # without the distribution's list there is no telling which of a bundle's are its own
        trusted |= _certificates(Path(os.environ[name]) for name in CA_BUNDLE_VARIABLES if os.environ.get(name))
    return sorted(trusted - own)


def _certificates(files: Iterator[Path]) -> set[str]:
    """Return the certificates in the files, in one normal form, so that sets of them can be compared."""
    found = set()
    for file in files:
        text = file.read_text(errors="replace") if file.is_file() else ""
        found |= {ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem)) for pem in PEM.findall(text)}
    return found


def _either_case(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def source_lines(suite: str) -> list[str]:
    """Return the lines of apt's list of sources for a suite."""
    return [
        f"deb {MIRROR} {suite} main",
        f"deb {MIRROR} {suite}-updates main",
        f"deb {SECURITY_MIRROR} {suite}-security main",
    ]


def recipe_of(tag: str) -> str:
    """Return the recipe that an image was made by, or nothing where there is no such image."""
    template = f'{{{{ index .Config.Labels "{RECIPE_LABEL}" }}}}'
    asked = subprocess.run(
        ["docker", "image", "inspect", "--format", template, f"{REPOSITORY}:{tag}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _root_from_packages(suite: str) -> str:
    """Make a root file system from Debian's packages and return the id of its image."""
    if not shutil.which("mmdebstrap"):
        raise StepError(
            f"there is no mmdebstrap: run 'lab/prepare.py docker' first, or name an image to start from: "
            f"LAB_BASE_IMAGE_{suite.upper()}=debian:{suite}"
        )
    with tempfile.TemporaryDirectory(prefix="image-", dir=CACHE) as directory:
        tar = Path(directory) / f"{suite}.tar"
        dpkg_option = "--dpkgopt=force-unsafe-io"
        include = f"--include={','.join(BASE_PACKAGES)}"
        run(["mmdebstrap", "--variant=minbase", dpkg_option, include, suite, tar, *source_lines(suite)])
        return run(["docker", "import", tar]).strip()


def _install_python(container: str, suite: str, proxies: dict[str, str]) -> None:
    """Install what runs the recipe: a registry's Debian image has no Python."""
    sources = "rm -f /etc/apt/sources.list.d/* && cat > /etc/apt/sources.list"
    install = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3"
    variables = [word for name in proxies for word in ("--env", name)]
    command = ["docker", "exec", "--interactive", *variables, container, "sh", "-c", f"{sources} && {install}"]
    run(command, env=proxies, stdin="".join(f"{line}\n" for line in source_lines(suite)))


def _make(container: str, part: str, settings: Mapping[str, object], tag: str, recipe: str) -> None:
    """Run a part of the recipe in the container and keep the result under the tag."""
    program = f"/tmp/{PROGRAM.name}"  # noqa: S108  (in the container, where the recipe empties it)
    run(["docker", "cp", PROGRAM, f"{container}:{program}"])
    run(["docker", "exec", "--interactive", container, "python3", program, part], stdin=json.dumps(settings))
    keep(container, tag, recipe)


def keep(container: str, tag: str, recipe: str) -> None:
    """Keep a container's files as the image of a host, under the tag."""
    changes = ['CMD ["/sbin/init"]', "ENTRYPOINT []", "ENV container=docker", f"LABEL {RECIPE_LABEL}={recipe}"]
    options = [word for change in changes for word in ("--change", change)]
    run(["docker", "commit", *options, container, f"{REPOSITORY}:{tag}"])


@contextlib.contextmanager
def container(tag: str, image: str, *options: str) -> Iterator[str]:
    """Run an idle container for the tag while the block lasts, also in place of one that an interrupted run left."""
    name = f"{REPOSITORY}-build-{tag}"
    remove = ["docker", "rm", "--force", "--volumes", name]
    subprocess.run(remove, capture_output=True, check=False)
    run(["docker", "run", "--detach", "--name", name, *options, "--entrypoint", "", image, "sleep", "infinity"])
    try:
        yield name
    finally:
        subprocess.run(remove, capture_output=True, check=False)
