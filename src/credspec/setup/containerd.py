"""Registers the shim with containerd, as a runtime handler of its CRI plug-in; undoes it."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from credspec.config.host import Config
from credspec.contract.start_wait import CONTAINERD_SECONDS
from credspec.errors import UsageError
from credspec.setup.engine import LAUNCHER_OPTION, EngineSetup, SetupOption
from credspec.setup.engine_files import FileChange, read_file, remove_file, write_file
from credspec.setup.launcher import launcher_text

CONTAINERD_CONFIG: Final = Path("/etc/containerd/config.toml")
HANDLER: Final = "credspec"
NAME: Final = "credspec-runtime-containerd"

# version of the file: the plug-in that has the runtimes
_PLUGINS: Final = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_BLOCK: Final = re.compile(
    r"(?P<line_end>\n?)# >>> credspec(?P<ended>, which ended the line before)?: .*? >>>\n"
    r".*?# <<< credspec <<<\n",
    re.DOTALL,
)
_RUNTIME_TYPE: Final = "io.containerd.runc.v2"
_DEFAULT: Final = "runc"
# Patterns of Go's path.Match, whose * stops at a slash. What is merely close to our annotations is
# passed on too, so that the shim refuses it; other annotations may mean something to runc.
_LOOSELY: Final = "".join(f"[{letter}{letter.upper()}]" for letter in "credspec")
_ESCAPED: Final = "%[0-9a-fA-F][0-9a-fA-F]"
_ANNOTATIONS: Final = [
    "credspec.dev/*",
    *(f"*{_LOOSELY}*{rest}" for rest in ("", "/*", "/*/*")),
    *(f"{before}*{_ESCAPED}*{after}" for before, after in (("", ""), ("", "/*"), ("*/", ""))),
    *(f"{before}*[^!-[\\]-~]*{after}" for before, after in (("", ""), ("", "/*"), ("*/", ""))),
]
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_HANDLER_FORM: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerdSetup(EngineSetup):
    """Where things go; `handler` is what a Kubernetes RuntimeClass names.

    ``ctr run --runc-binary`` takes the launcher, too.
    """

    name: ClassVar = "containerd"
    help: ClassVar = """Register the runtime with containerd, as a handler for Kubernetes.

    What config.toml holds is kept. Run again, it changes nothing. `ctr run` only needs the
    launcher: --runc-binary.
    """
    options: ClassVar = (
        SetupOption("--config", Path, "[default: /etc/containerd/config.toml]", "config"),
        LAUNCHER_OPTION,
        SetupOption("--handler", str, "Name for RuntimeClass.", "handler", default=HANDLER),
    )
    launcher_name: ClassVar = NAME
    default_wait_seconds: ClassVar = CONTAINERD_SECONDS

    config: Path = CONTAINERD_CONFIG
    handler: str = HANDLER
    wait_seconds: float = CONTAINERD_SECONDS

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Set everything up and return a line for each thing changed; none if all was so already.

        All that stood in the file stays, byte for byte.

        Raises:
            UsageError: `containerd-config-toml`, `containerd-config-version`,
                `containerd-cri-disabled`, `containerd-runtime-taken`, `containerd-handler`.
            CredspecError: `setup-read`, `setup-write`.
        """
        if not _HANDLER_FORM.fullmatch(self.handler):
            raise UsageError.of(
                "containerd-handler",
                repr(self.handler[:80]),
                where="handler",
                expected="lower-case letters, digits and dashes, as Kubernetes wants it",
            )
        original = read_file(self.config)
        text = _decoded(original or b"", self.config)
        wanted = self._with_block(text)
        shim = launcher_text(self.run_directory, wait_seconds=self.wait_seconds)
        changes = self._write_files({self.launcher: (shim.encode(), 0o755)}, dry_run=dry_run)
        if wanted != text:
            line = f"registered the runtime handler {self.handler} in {self.config}"
            changes.append(FileChange.of(line, self.config))
            if not dry_run:
                write_file(self.config, wanted.encode())
        return changes

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Undo everything and return a line for each thing changed.

        Raises:
            UsageError: `containerd-config-toml`.
            CredspecError: `setup-read`, `setup-write`.
        """
        changes: list[str] = []
        original = read_file(self.config)
        text = _decoded(original or b"", self.config)
        rest = _without_block(text)
        if rest != text:
            line = f"removed the runtime handler {self.handler} from {self.config}"
            changes.append(FileChange.of(line, self.config))
            if not dry_run and rest:
                write_file(self.config, rest.encode())
            elif not dry_run:
                remove_file(self.config)
        return changes + self._remove_files(
            [self.launcher], [self.launcher_directory], dry_run=dry_run
        )

    def next_step(self, config: Config) -> str:
        """Return how containerd and Kubernetes get to know the handler."""
        del config
        return f"systemctl restart containerd, and a RuntimeClass with the handler {self.handler}"

    def next_step_of_undo(self) -> str:
        """Return how containerd forgets the handler."""
        return "systemctl restart containerd"

    def _with_block(self, text: str) -> str:
        rest = _without_block(text)
        before = _parsed(rest, self.config)
        version = before.get("version", 1) if rest.strip() else 2
        if version not in _PLUGINS:
            raise UsageError.of(
                "containerd-config-version",
                f"version {version!r}",
                where=str(self.config),
                expected="version 2 or 3",
                remedy="migrate it: containerd config migrate",
            )
        plugin = _PLUGINS[version]
        disabled = {"cri", plugin} & set(before.get("disabled_plugins") or [])
        if disabled:
            raise UsageError.of(
                "containerd-cri-disabled",
                f"disabled_plugins has {disabled.pop()!r}",
                where=str(self.config),
                remedy="Kubernetes needs that plug-in: take it out of disabled_plugins; ctr needs "
                f"no set-up: ctr run --runc-binary {self.launcher} ...",
            )
        present = _at(before, "plugins", plugin, "containerd", "runtimes", self.handler)
        if present is not None or self.handler == _DEFAULT:
            raise UsageError.of(
                "containerd-runtime-taken",
                f"there is a runtime {self.handler} already",
                where=str(self.config),
                remedy="remove it first, or name another with --handler",
            )
        block = self._block(rest, plugin, _at(before, "plugins", plugin, "containerd") or {})
        # Where it stands is of no matter, if it is there.
        wanted = text if block.strip() in text else rest + block
        after = _parsed(wanted, self.config)
        runtimes = _at(after, "plugins", plugin, "containerd", "runtimes")
        added = runtimes[self.handler]
        if added["options"]["BinaryName"] != str(self.launcher):
            raise AssertionError("what was written is not what was meant")
        return wanted

    def _block(self, rest: str, plugin: str, containerd: dict[str, Any]) -> str:
        runtimes = f'plugins."{plugin}".containerd.runtimes'
        is_ended = not rest or rest.endswith("\n")
        begin = "# >>> credspec" if is_ended else "# >>> credspec, which ended the line before"
        runc = _at(containerd, "runtimes", _DEFAULT)
        lines = [
            f"{begin}: written by `credspec setup containerd`; --undo removes these lines >>>",
            *([] if rest.strip() else ["version = 2"]),
        ]
        if runc is None and containerd.get("default_runtime_name", _DEFAULT) == _DEFAULT:
            # A file that names any runtime loses the one that is there by default.
            lines += [f"[{runtimes}.{_DEFAULT}]", f"  runtime_type = {_toml(_RUNTIME_TYPE)}"]
        keys = {
            "runtime_type": _RUNTIME_TYPE,
            "pod_annotations": _ANNOTATIONS,
            "container_annotations": _ANNOTATIONS,
        }
        # Such as SystemdCgroup: a node's containers must agree on it.
        options = {"BinaryName": str(self.launcher)} | _simple_members(_at(runc, "options"))
        options["BinaryName"] = str(self.launcher)
        lines += [f"[{runtimes}.{self.handler}]", *(f"  {k} = {_toml(v)}" for k, v in keys.items())]
        lines += [
            f"  [{runtimes}.{self.handler}.options]",
            *(f"    {k} = {_toml(v)}" for k, v in options.items()),
            "# <<< credspec <<<",
        ]
        return ("" if is_ended else "\n") + "\n".join(lines) + "\n"


def _simple_members(table: Any) -> dict[str, Any]:
    members = table.items() if isinstance(table, dict) else ()
    return {k: v for k, v in members if _BARE_KEY.fullmatch(k) and isinstance(v, bool | int | str)}


def _without_block(text: str) -> str:
    return _BLOCK.sub(lambda match: "" if match["ended"] else match["line_end"], text)


def _toml(value: Any) -> str:
    # Texts, numbers, truths and lists of these are the same in JSON; TOML wants DEL escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _at(document: dict[str, Any], *keys: str) -> Any:
    found: Any = document
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_toml(path, str(error)) from None


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(path, str(error)) from None


def _not_toml(path: Path, found: str) -> UsageError:
    return UsageError.of(
        "containerd-config-toml",
        found,
        where=str(path),
        expected="a configuration of containerd to which a table can be added",
        remedy="fix it first; it was not changed",
    )
