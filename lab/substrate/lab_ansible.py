"""Keeps what Ansible works out anew in each run, in a lab's controller: imported by every Python of `.venv`, by a `.pth` beside it.

A run of a playbook finds out for each module what it imports, by parsing all of it; and each of its workers translates each template into Python
again. Together that is more than a third of what Ansible computes, and the tests run hundreds of playbooks. Both are kept by what they were made of.

Nothing of Ansible is imported here: its parts are changed when somebody else imports them.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import marshal
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

CACHE = Path(__file__).with_suffix(".cache")
PACKAGES = Path(__file__).parent
SYNTAX = (
    *("block_start_string", "block_end_string", "variable_start_string", "variable_end_string", "comment_start_string", "comment_end_string"),
    *("line_statement_prefix", "line_comment_prefix", "trim_blocks", "lstrip_blocks", "newline_sequence", "keep_trailing_newline", "optimized"),
)


def keep(kind: str, key: str, content: bytes) -> None:
    """Write what was worked out; whoever reads finds all of it or nothing."""
    place = CACHE / f"{kind}-{key}"
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.rename(place)
    except OSError:
        pass  # another user's environment, in which everything is worked out as everywhere


def kept(kind: str, key: str) -> bytes | None:
    """Read what was worked out before, if it was."""
    try:
        return (CACHE / f"{kind}-{key}").read_bytes()
    except OSError:
        return None


def filters_of(roots: Sequence[str]) -> str:
    """Fingerprint of the collections' own filters and tests: how one is called is part of a translation."""
    plugins = [
        path for root in roots for kind in ("filter", "test") for path in Path(root).glob(f"ansible_collections/sovereign/*/plugins/{kind}/*.py")
    ]
    return repr(sorted((str(path), path.stat().st_mtime_ns) for path in plugins))


def change_templates(module: ModuleType) -> None:
    """Have Jinja keep its translations of templates and of expressions."""
    environment = module.Environment
    compile_template, compile_expression = environment.compile, environment.compile_expression
    surroundings = filters_of([os.environ.get("ANSIBLE_COLLECTIONS_PATH", ""), str(Path.cwd() / "collections")])

    class Known:
        """A translation, where a template is expected."""

        def __init__(self, code: CodeType) -> None:
            self.code = code

    def key_of(env: Any, kind: str, source: str) -> str:
        bits = sys.modules.get("ansible._internal._templating._jinja_bits")
        context = bits._TemplateCompileContext.current(optional=True) if bits else None
        syntax = [getattr(env, name) for name in SYNTAX]
        extensions = sorted(env.extensions)
        told = (surroundings, type(env).__name__, syntax, extensions, bool(context and context.escape_backslashes), kind, source)
        return hashlib.sha256(repr(told).encode(errors="surrogatepass")).hexdigest()

    def translated(env: Any, source: Any, name: Any = None, filename: Any = None, raw: bool = False, defer_init: bool = False) -> Any:
        if isinstance(source, Known):
            return source.code
        if type(env).__name__ != "AnsibleEnvironment" or not isinstance(source, str) or name or filename or raw or defer_init:
            return compile_template(env, source, name, filename, raw, defer_init)
        key = key_of(env, "template", str(source))
        if content := kept("template", key):
            return marshal.loads(content)
        code = compile_template(env, source)
        keep("template", key, marshal.dumps(code))
        return code

    def expression(env: Any, source: str, undefined_to_none: bool = True) -> Any:
        if type(env).__name__ != "AnsibleEnvironment":
            return compile_expression(env, source, undefined_to_none)
        key = key_of(env, "expression", str(source))
        if content := kept("template", key):
            return module.TemplateExpression(env.from_string(Known(marshal.loads(content))), undefined_to_none)
        codes: list[CodeType] = []

        def note(text: str, filename: str) -> CodeType:
            codes.append(original(text, filename))
            return codes[-1]

        original = env._compile
        env._compile = note
        try:
            found = compile_expression(env, source, undefined_to_none)
        finally:
            del env._compile
        keep("template", key, marshal.dumps(codes[-1]))
        return found

    environment.compile, environment.compile_expression = translated, expression


def change_modules(module: ModuleType) -> None:
    """Have Ansible keep what it finds that a module imports."""
    find = module.recursive_finder

    def place_of(member: str) -> Path | None:
        """Find the file that a member of a module's archive was made from."""
        for root in (PACKAGES, *map(Path, module.C.COLLECTIONS_PATHS)):
            if (path := root / member).is_file():
                return path
        return None

    def states(members: Sequence[str]) -> list[tuple[str, int, int] | None]:
        found: list[tuple[str, int, int] | None] = []
        for member in members:
            path = place_of(member)
            state = path.stat() if path else None
            found.append((str(path), state.st_size, state.st_mtime_ns) if state else None)
        return found

    def finder(name: str, fqn: str, data: Any, archive: zipfile.ZipFile, moment: Any, extensions: Any) -> Any:
        if extensions.extension_names:
            return find(name, fqn, data, archive, moment, extensions)
        text = data if isinstance(data, bytes) else str(data).encode()
        key = hashlib.sha256(repr((fqn, archive.compression, module.C.COLLECTIONS_PATHS)).encode() + text).hexdigest()
        if content := kept("module", key):
            metadata, members, before = pickle.loads(content)
            if states(list(members)) == before:
                if reads := sys.modules.get("lab_reads"):
                    reads.note([place for place in map(place_of, members) if place])
                for member, part in members.items():
                    archive.writestr(zipfile.ZipInfo(member, date_time=moment.utctimetuple()[:6]), part, compress_type=archive.compression)
                return metadata
        members, write = {}, archive.writestr

        def note(member: zipfile.ZipInfo, part: Any, *others: Any, **more: Any) -> None:
            members[member.filename] = part
            write(member, part, *others, **more)

        archive.writestr = note  # type: ignore[method-assign, assignment]
        try:
            metadata = find(name, fqn, data, archive, moment, extensions)
        finally:
            del archive.writestr
        made_from = states(list(members))
        # What comes from elsewhere, such as a directory beside a playbook, could change unseen.
        if all(state or not part for state, part in zip(made_from, members.values(), strict=True)):
            keep("module", key, pickle.dumps((metadata, members, made_from)))
        return metadata

    module.recursive_finder = finder  # type: ignore[attr-defined]


CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "jinja2.environment": change_templates,
    "ansible.executor.module_common": change_modules,
}


class Changed(importlib.abc.Loader):
    """Loads a module as always, and then changes it."""

    def __init__(self, loader: importlib.abc.Loader, change: Callable[[ModuleType], None]) -> None:
        """Remember both."""
        self.loader, self.change = loader, change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave that to the module's own loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Load it, and change it."""
        self.loader.exec_module(module)
        self.change(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are changed, by asking those who find everything else."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """Give a module's place, with a loader that changes it."""
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = Changed(spec.loader, CHANGES[name])
        return spec


sys.meta_path.insert(0, Finder())
