# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of files that is brought to its wanted state as a whole: all of it, or nothing."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

Check = Callable[[str], str]
"""Runs a command line; returns what it complained about, or nothing."""


class ConfigFilesError(Exception):
    """A file that cannot be had as wanted; nothing has been changed, or everything has been put back."""


@dataclass(frozen=True)
class Wanted:
    """What one path shall be.

    Attributes:
        path: Absolute path on the host.
        state: ``file``, ``directory`` or ``absent``.
        content: What a file holds.
        owner: Name of the owner.
        group: Name of the group.
        mode: Permission bits.
        validate: Command line that checks a draft of the file before it is put in place; ``%s`` stands for the draft's path.
        sensitive: Whether its content is kept out of differences.
    """

    path: Path
    state: str = "file"
    content: bytes = b""
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    validate: str = ""
    sensitive: bool = False


@dataclass(frozen=True)
class Found:
    """What a path is: ``kind`` is ``file``, ``directory``, ``absent`` or ``other`` (a link, a device)."""

    kind: str
    content: bytes = b""
    uid: int = 0
    gid: int = 0
    mode: int = 0


@dataclass(frozen=True)
class Change:
    """A path that is not what it shall be.

    Attributes:
        wanted: What it shall be.
        found: What it is.
    """

    wanted: Wanted
    found: Found

    def difference(self) -> dict[str, str]:
        """Show the change as Ansible's ``diff`` does: the content, or owner and mode where these are all that differs."""
        wanted, found = self.wanted, self.found
        is_so = "absent" if found.kind == "absent" else f"{found.kind}, {_owner_name(found.uid)}:{_group_name(found.gid)} {found.mode:04o}"
        shall_be = "absent" if wanted.state == "absent" else f"{wanted.state}, {wanted.owner}:{wanted.group} {wanted.mode:04o}"
        after = wanted.content if wanted.state == "file" else b""
        if found.content == after:
            before_text, after_text = f"{is_so}\n", f"{shall_be}\n"
        elif wanted.sensitive:
            before_text, after_text = "(not shown)\n", "(something else, not shown)\n"
        else:
            before_text, after_text = _text(found.content), _text(after)
        return {
            "before": before_text,
            "after": after_text,
            "before_header": f"{wanted.path} ({is_so})",
            "after_header": f"{wanted.path} ({shall_be})",
        }


def look(path: Path) -> Found:
    """See what a path is, without following a link."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Found("absent")
    kind, content = "other", b""
    if stat.S_ISREG(status.st_mode):
        kind, content = "file", path.read_bytes()
    elif stat.S_ISDIR(status.st_mode):
        kind = "directory"
    return Found(kind, content, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def extras(directory: Path, only: Collection[str]) -> list[Wanted]:
    """Find what is in a directory and is not to be.

    Args:
        directory: Its path.
        only: Names that it may hold.

    Returns:
        Its other entries, to be absent.
    """
    return [Wanted(path, "absent") for path in sorted(directory.iterdir()) if path.name not in only] if directory.is_dir() else []


def changes(wanted: Iterable[Wanted], check_mode: bool = False) -> list[Change]:
    """Find what differs.

    Args:
        wanted: What shall be, in the order in which it is to be made.
        check_mode: Whether an owner who does not exist is one that an earlier task would have created, and no mistake.

    Returns:
        What is not so yet, in the same order.

    Raises:
        ConfigFilesError: A user or group does not exist, or something that is not a file is in the way.
    """
    found: list[Change] = []
    for item in wanted:
        change = Change(item, look(item.path))
        if item.state == "absent":
            if change.found.kind != "absent":
                found.append(change)
            continue
        _refuse_what_is_in_the_way(change)
        try:
            owner = (_uid(item.owner), _gid(item.group))
        except ConfigFilesError:
            if not check_mode:
                raise
            owner = (-1, -1)
        is_so = (change.found.kind, change.found.uid, change.found.gid, change.found.mode) == (item.state, *owner, item.mode)
        if not is_so or (item.state == "file" and change.found.content != item.content):
            found.append(change)
    return found


def apply(pending: Sequence[Change], check: Check) -> None:
    """Make the changes, in their order; if one is refused, put everything back.

    A file is written beside its place, given its owner and mode, checked, and only then put in place at one stroke: nobody ever sees half of it, or
    sees it with other permissions. Files are checked one after another, so that a file's check sees those before it in place.

    Args:
        pending: What ``changes`` has found.
        check: Runs a file's ``validate``.

    Raises:
        ConfigFilesError: A check refused a file, or the file system an operation; what had been changed is as it was.
    """
    undo: list[Callable[[], None]] = []
    try:
        for change in pending:
            _apply_one(change, check, undo)
    except (ConfigFilesError, OSError) as error:
        for step in reversed(undo):
            step()
        if isinstance(error, ConfigFilesError):
            raise
        raise ConfigFilesError(f"{error.filename or ''}: {error.strerror}; nothing has been changed") from error


@dataclass
class _Place:
    """Undoes what is done to one path.

    Attributes:
        change: What is done.
        made: Directories that were made for it.
        touched: Whether the path itself is another by now. A file that was refused is not: written once more, it would look newer than what a
            unit has loaded.
    """

    change: Change
    made: list[Path] = field(default_factory=list)
    touched: bool = False

    def restore(self) -> None:
        path, found = self.change.wanted.path, self.change.found
        if not self.touched:
            pass
        elif found.kind == "file":
            _put(path, found.content, found.uid, found.gid, found.mode)
        elif found.kind == "directory":
            os.chown(path, found.uid, found.gid)
            path.chmod(found.mode)
        elif self.change.wanted.state == "file":
            path.unlink(missing_ok=True)
        for directory in reversed(self.made):
            with suppress(OSError):
                directory.rmdir()


def _apply_one(change: Change, check: Check, undo: list[Callable[[], None]]) -> None:
    wanted, path = change.wanted, change.wanted.path
    if wanted.state == "absent":
        if change.found.kind == "directory":
            # Nothing brings a tree back: it goes last, when nothing can be refused any more, or the caller lists it last.
            shutil.rmtree(path)
        else:
            undo.append(_Place(change, touched=True).restore)
            path.unlink()
        return
    place = _Place(change)
    undo.append(place.restore)
    parents = path if wanted.state == "directory" else path.parent
    for directory in reversed([parents, *parents.parents]):
        if not directory.exists():
            directory.mkdir(mode=0o755)
            directory.chmod(0o755)
            place.made.append(directory)
    if wanted.state == "directory":
        place.touched = True
        os.chown(path, _uid(wanted.owner), _gid(wanted.group))
        path.chmod(wanted.mode)
        return

    def approve(draft: Path) -> None:
        if wanted.validate and (complaint := check(wanted.validate.replace("%s", str(draft)))):
            raise ConfigFilesError(f"{path} is refused, and nothing has been changed: {complaint.replace(str(draft), str(path))}")

    _put(path, wanted.content, _uid(wanted.owner), _gid(wanted.group), wanted.mode, approve)
    place.touched = True


def _put(path: Path, content: bytes, uid: int, gid: int, mode: int, approve: Callable[[Path], None] = lambda dummy: None) -> None:
    """Put a file in place at one stroke."""
    # With the name's own ending, by which some programs know what they read.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chown(draft, uid, gid)
        draft.chmod(mode)
        approve(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _refuse_what_is_in_the_way(change: Change) -> None:
    wanted, kind = change.wanted, change.found.kind
    if (wanted.state, kind) in {("file", "directory"), ("directory", "file"), ("directory", "other")}:
        raise ConfigFilesError(f"{wanted.path} is wanted as a {wanted.state}, but something else is there; look at it and move it away")


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigFilesError(f"there is no user {name}") from None


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigFilesError(f"there is no group {name}") from None


def _owner_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"({len(content)} bytes that are no text)\n"
