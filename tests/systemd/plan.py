# SPDX-License-Identifier: Apache-2.0
"""What ``restrict.py`` is to do for a unit. A line that is not understood is refused here."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from tests.e2e.harness.otelauto import PROGRAM
from tests.house.scan import ROOT
from tests.systemd.unit import Unit, resolved, system_call_groups

UID = 61184  # the first that DynamicUser= gives
GROUPS_DENIED = {
    "ProtectClock": "@clock", "ProtectKernelModules": "@module", "ProtectKernelLogs": "syslog",
}  # fmt: skip
HOSTNAMES = ("sethostname", "setdomainname")
FILTERS = (
    "LockPersonality", "MemoryDenyWriteExecute", "RestrictNamespaces", "RestrictSUIDSGID",
    "RestrictRealtime",
)  # fmt: skip
TUNABLES = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/fs", "/sys")
# What a file says that is about the manager, about names, or is asked for by the code below.
OTHER = {
    "Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "RestartPreventExitStatus",
    "DynamicUser", "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges",
    "LoadCredential", "SetCredential", "StateDirectory", "StateDirectoryMode",
    "RuntimeDirectory", "RuntimeDirectoryMode", "UMask", "ProtectSystem", "ProtectHome",
    "PrivateTmp", "PrivateDevices", "ProtectControlGroups", "ProtectHostname",
    "ProtectKernelTunables", "ProtectProc", "ProcSubset", "RestrictAddressFamilies",
    "SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter", "LimitCORE",
    "LimitMEMLOCK", "LimitNOFILE", "Description", "After", "Wants", "WantedBy",
}  # fmt: skip
# Applied by systemd, not by hand: cgroups, key rings, IPC objects of the user, and a user name
# space for the agent.
NOT_APPLIED = {
    "MemoryMax", "TasksMax", "KeyringMode", "RemoveIPC", "PrivateUsers",
}  # fmt: skip


class Scene:
    """The files of a run: what lies in /etc/otelauto, credentials, state, run directory."""

    def __init__(self, directory: Path, unit: Unit) -> None:
        self.unit = unit
        self.directory = directory
        self.name = unit.path.stem
        for name in ("etc", "state", "run", "credentials", "base"):
            made = directory / name
            made.mkdir()
            made.chmod(0o755 if name in ("etc", "base") else 0o700)
            if name not in ("etc", "base"):
                os.chown(made, UID, UID)

    @property
    def etc(self) -> Path:
        """What the unit sees as /etc/otelauto."""
        return self.directory / "etc"

    @property
    def run(self) -> Path:
        """What the unit sees as its run directory."""
        return self.directory / "run"

    def credential(self, name: str, text: str) -> None:
        """A credential, for the unit's user only."""
        assert any(value.startswith(f"{name}:") for value in self.unit.values("LoadCredential"))
        file = self.directory / "credentials" / name
        file.write_text(text)
        file.chmod(0o400)
        os.chown(file, UID, UID)

    def command(self, *words: str) -> list[str | Path]:
        """The words that run the unit's command, or another one, under its restrictions."""
        file = self.directory / "plan.json"
        file.write_text(json.dumps(self._plan(file, list(words))))
        return [sys.executable, ROOT / "tests" / "systemd" / "restrict.py", file]

    def _plan(self, file: Path, words: list[str]) -> dict[str, Any]:
        unit = self.unit
        check_understood(unit)
        at = f"/var/lib/{unit.value('StateDirectory')}"
        credentials = f"/run/credentials/{unit.path.name}"
        bound = {
            "/etc/otelauto": self.etc, at: self.directory / "state",
            credentials: self.directory / "credentials",
        }  # fmt: skip
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "LANG": "C.UTF-8", "HOME": "/", "USER": self.name,
            "STATE_DIRECTORY": at, "CREDENTIALS_DIRECTORY": credentials,
        }  # fmt: skip
        if unit.values("RuntimeDirectory"):
            run = f"/run/{unit.value('RuntimeDirectory')}"
            bound[run] = self.run
            environment |= {"RUNTIME_DIRECTORY": run, "NOTIFY_SOCKET": f"{run}/notify"}
        command = words or unit.value("ExecStart").split()
        return {
            "file": str(file),
            "base": str(self.directory / "base"),
            "words": [environment.get(word[2:-1], word) for word in command],
            "environment": environment,
            "bound": {target: str(source) for target, source in bound.items()},
            "bound_read_only": ["/etc/otelauto", credentials],
            # Where this otelauto lies: the unit's is where nothing hides it.
            "shown": [str(ROOT), sys.base_prefix, str(file)],
            "links": {"/opt/otelauto/bin/otelauto": str(PROGRAM)},
            "umask": int(unit.value("UMask"), 8),
            "limits": unit.limits(),
            "setpriv": privileges(unit),
            **files(unit),
            **filters(unit),
        }


def check_understood(unit: Unit) -> None:
    """A setting that would silently not be applied is an error of the test."""
    known = OTHER | NOT_APPLIED | set(FILTERS) | set(GROUPS_DENIED)
    settings = {
        line.partition("=")[0]
        for line in unit.path.read_text().splitlines()
        if line[:1].isupper() and "=" in line
    }
    assert settings <= known, settings - known


def files(unit: Unit) -> dict[str, Any]:
    """What the mount namespace shows."""
    emptied = dict.fromkeys(("/home", "/root", "/run/user"), "0755")
    assert unit.value("ProtectHome") == "yes"
    assert unit.value("ProtectSystem") == "strict"
    assert unit.says_yes("PrivateTmp")
    hidden = (unit.values("ProtectProc") or [""])[0]
    subset = (unit.values("ProcSubset") or [""])[0]
    assert bool(hidden) == bool(subset), "both, or neither"
    read_only = ["/sys/fs/cgroup"] if unit.says_yes("ProtectControlGroups") else []
    if unit.says_yes("ProtectKernelTunables"):
        read_only += TUNABLES
    return {
        "strict": True,
        "emptied": {**emptied, "/tmp": "1777", "/var/tmp": "1777", "/usr/lib/modules": "0000"},
        "proc": f"hidepid={hidden},subset={subset}" if hidden else "",
        "private_devices": unit.says_yes("PrivateDevices"),
        "unreadable": ["/proc/kmsg"] if unit.says_yes("ProtectKernelLogs") else [],
        "read_only": read_only,
    }


def filters(unit: Unit) -> dict[str, Any]:
    """What system calls may do."""
    assert unit.value("SystemCallErrorNumber") == "EPERM"
    assert unit.value("SystemCallArchitectures") == "native"
    groups = system_call_groups()
    denied = {
        call
        for name, word in GROUPS_DENIED.items()
        if unit.says_yes(name)
        for call in resolved(word, groups)
    }
    if unit.says_yes("ProtectHostname"):
        denied |= set(HOSTNAMES)
    allowed = unit.system_calls()
    names = " ".join(unit.values("RestrictAddressFamilies")).split()
    return {
        "families": [int(getattr(socket, name)) for name in names],
        "filters": [name for name in FILTERS if unit.says_yes(name)],
        "denied_calls": sorted(denied & NATIVE),
        "allowed_calls": sorted(allowed),
    }


# Of the groups that are denied, what x86-64 and arm64 both have.
NATIVE = {
    "adjtimex", "clock_adjtime", "clock_settime", "settimeofday", "delete_module", "finit_module",
    "init_module", "syslog", *HOSTNAMES,
}  # fmt: skip


def privileges(unit: Unit) -> list[str]:
    """The arguments of setpriv(1) for the user and the capabilities."""
    assert unit.says_yes("DynamicUser")
    assert unit.says_yes("NoNewPrivileges")
    bounding = ["-all", *(f"+{name}" for name in unit.capabilities("CapabilityBoundingSet"))]
    ambient = ["-all", *(f"+{name}" for name in unit.capabilities("AmbientCapabilities"))]
    return [
        f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs",
        f"--bounding-set={','.join(bounding)}", f"--inh-caps={','.join(ambient)}",
        f"--ambient-caps={','.join(ambient)}",
    ]  # fmt: skip
