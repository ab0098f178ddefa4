"""Common ground of the steps: paths, running commands, atomic outputs, the lock, the printed account."""

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAB = Path(__file__).resolve().parent.parent
REPO = LAB.parent
CACHE = Path(os.environ.get("SOVEREIGN_LAB_CACHE") or "~/.cache/sovereign-dify-lab").expanduser().resolve()


class StepError(Exception):
    """A step could not be done; the text says what failed and what to do."""


@dataclass(frozen=True)
class Step:
    """One step: what it makes, and the function that makes it.

    The function returns what it did in a few words, or None where all was there already.
    """

    makes: str
    prepare: Callable[[], str | None]


def say(text: str) -> None:
    """Print one line of progress at once, also where the output is a pipe."""
    print(f"      {text}", flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
) -> str:
    """Run a command and return its standard output; on failure raise StepError with the end of what it said."""
    words = [str(word) for word in argv]
    shown = shlex.join(words) if len(words) < 16 else shlex.join(words[:15]) + " …"
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            input=stdin,
            cwd=cwd,
            timeout=timeout,
            text=True,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise StepError(f"there is no command {words[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(f"after {timeout:.0f} s still not done: {shown}") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise StepError(f"exit code {done.returncode} from: {shown}\n{tail}")
    return done.stdout


def digest(*parts: str | bytes) -> str:
    """Return one SHA-256 over the parts; lengths are hashed too, so that no two lists of parts collide."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "big"))
        total.update(raw)
    return total.hexdigest()


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`; a second run waits and says so. It ends with the process, however that ends."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at this step: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def fresh_directory(final: Path, stamp: str) -> Iterator[Path]:
    """Yield an empty directory whose files take the place of those in `final` when the block ends well.

    `final` itself stays, because running hosts have it mounted. Its file `stamp` vouches for the others: it goes first
    and comes last, so an interrupted run is seen and taken up by the next.
    """
    partial = final.with_name(f".{final.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # what an interrupted run left
    partial.mkdir(parents=True)
    try:
        yield partial
        final.mkdir(exist_ok=True)
        (final / stamp).unlink(missing_ok=True)
        new = {path.name for path in partial.iterdir()}
        for path in final.iterdir():
            if path.name not in new:
                path.unlink()
        for name in sorted(new - {stamp}):
            (partial / name).replace(final / name)
        (partial / stamp).replace(final / stamp)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_steps(steps: Mapping[str, Step]) -> int:
    """Run the steps in order, print an account of each, stop at the first failure; return the exit code."""
    for number, (name, step) in enumerate(steps.items(), start=1):
        print(f"[{number}/{len(steps)}] {name}: {step.makes}", flush=True)
        begin = time.monotonic()
        try:
            with lock(name):
                done = step.prepare()
        except StepError as error:
            print(f"FAILED {name} after {time.monotonic() - begin:.1f} s\n{error}", file=sys.stderr, flush=True)
            return 1
        say(f"{'already done' if done is None else done} ({time.monotonic() - begin:.1f} s)")
    return 0
