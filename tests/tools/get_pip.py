"""Install pip and its companions into an empty virtual environment, from the package index at hand.

ansible-test wants to fetch PyPA's get-pip from a site of its own, which machines behind a firm's mirror do not reach. It calls this file instead,
with the arguments it would give to get-pip; those that name packages are what counts.
"""

import subprocess
import sys


def main() -> int:
    """Install the packages named on the command line into the environment of the Python that runs this."""
    packages = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not any(package.startswith("pip") for package in packages):
        packages.append("pip")
    return subprocess.run(["uv", "pip", "install", "--quiet", "--system-certs", "--python", sys.executable, *packages], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
