# SPDX-License-Identifier: Apache-2.0
"""What is in a wheel and what it needs: a CycloneDX 1.6 document in JSON, on standard output.

python -m tools.sbom WHEEL [SOURCES]

Components are the run-time packages, as requirements/run.txt locks them, and, where the wheel has
a libbpf of its own, that with libelf and zlib; SOURCES is the directory of the libbpf-sys package
that they were built of (default: where tools/libbpf/fetch.sh puts it). The licences of packages are
those that their installed metadata says. The same wheel gives the same document.

Raises SbomError for a package without a known licence, or one that is not what is locked.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import sys
import tomllib
import uuid
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "run.txt"
CARGO_LOCK = ROOT / "tools" / "libbpf" / "Cargo.lock"
SOURCES = ROOT / ".build" / "wheel" / "sources" / "libbpf-sys"
BUNDLED = "otelauto/kernel/bundled/libbpf.so.1"
# For packages that do not name their licence as SPDX does.
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}
# (name, licence, file that says the version, where it stands there)
PARTS = (
    ("libbpf", "LGPL-2.1-only OR BSD-2-Clause", "libbpf/src/libbpf.map", r"(?m)^LIBBPF_([\d.]+) {"),
    (
        "elfutils", "GPL-2.0-or-later OR LGPL-3.0-or-later", "elfutils/configure.ac",
        r"AC_INIT\(\[elfutils\],\[([\d.]+)\]",
    ),
    ("zlib", "Zlib", "zlib/zlib.h", r'#define ZLIB_VERSION "([\d.]+)"'),
)  # fmt: skip
Document = dict[str, Any]


class SbomError(Exception):
    """What is to be said is not known."""


@dataclass
class Locked:
    """A package of a lock file: the hashes of its files, and who asks for it."""

    name: str
    version: str
    hashes: list[str] = field(default_factory=list)
    needed_by: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Locked]:
    """The packages of a lock file as uv writes it."""
    found: list[Locked] = []
    for line in text.splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", line):
            found.append(Locked(match[1], match[2]))
        elif match := re.match(r" +--hash=sha256:([0-9a-f]{64})", line):
            found[-1].hashes.append(match[1])
        elif match := re.match(r" +#(?: via)? +(?!via$)([a-z0-9][a-z0-9._-]*)", line):
            found[-1].needed_by.append(match[1])
    return found


def licence_of(name: str, metadata: Message) -> str:
    """The SPDX expression that a package's metadata gives."""
    if expression := metadata.get("License-Expression"):
        return expression
    for classifier in metadata.get_all("Classifier") or ():
        if classifier in NAMES:
            return NAMES[classifier]
    text = metadata.get("License", "")
    if text in NAMES:
        return NAMES[text]
    if re.fullmatch(r"[A-Za-z0-9.+-]+", text):
        return text
    raise SbomError(f"{name} does not say its licence in a way that is known here")


def _python(locked: Locked) -> Document:
    """A run-time package."""
    metadata = importlib.metadata.metadata(locked.name)
    if metadata["Version"] != locked.version:
        raise SbomError(f"{locked.name} {metadata['Version']} is installed, not {locked.version}")
    hashes = [{"alg": "SHA-256", "content": each} for each in locked.hashes]
    page = f"https://pypi.org/project/{locked.name}/{locked.version}/"
    return {
        "type": "library",
        "bom-ref": locked.reference,
        "name": locked.name,
        "version": locked.version,
        "purl": locked.reference,
        "licenses": [{"expression": licence_of(locked.name, metadata)}],
        "externalReferences": [{"type": "distribution", "url": page, "hashes": hashes}],
    }


def _part(name: str, licence: str, version: str, crate: Document) -> Document:
    """A library that is inside the bundled one."""
    url = f"https://crates.io/crates/{crate['name']}/{crate['version'].partition('+')[0]}"
    return {
        "type": "library",
        "bom-ref": f"pkg:generic/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:generic/{name}@{version}",
        "licenses": [{"expression": licence}],
        "externalReferences": [
            {
                "type": "source-distribution",
                "url": url,
                "hashes": [{"alg": "SHA-256", "content": crate["checksum"]}],
            }
        ],
    }


def _bundled(library: bytes, sources: Path) -> list[Document]:
    """The bundled library, and what it is made of."""
    packages = tomllib.loads(CARGO_LOCK.read_text())["package"]
    (crate,) = (each for each in packages if each["name"] == "libbpf-sys")
    parts = []
    for name, licence, file, pattern in PARTS:
        versions = re.findall(pattern, (sources / file).read_text())
        if not versions:
            raise SbomError(f"{sources / file} does not say the version of {name}")
        parts.append(_part(name, licence, versions[-1], crate))
    whole = {
        "type": "file",
        "bom-ref": BUNDLED,
        "name": BUNDLED,
        "hashes": [_sha256(library)],
        "licenses": [{"expression": " AND ".join(f"({licence})" for _, licence, *_ in PARTS)}],
    }
    return [whole, *parts]


def _sha256(data: bytes) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(data).hexdigest()}


def document(wheel: Path, sources: Path = SOURCES) -> Document:
    """The whole document."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(name))
        library = archive.read(BUNDLED) if BUNDLED in archive.namelist() else None
        made = datetime(*archive.getinfo(name).date_time, tzinfo=UTC)
    locked = read_lock(LOCK.read_text())
    references = {each.name: each.reference for each in locked}
    digest = _sha256(wheel.read_bytes())
    itself = f"pkg:pypi/otelauto@{metadata['Version']}?file_name={wheel.name}"
    inside = _bundled(library, sources) if library else []
    depends = {each.reference: set[str]() for each in locked} | {itself: set()}
    for each in locked:
        for other in each.needed_by:
            depends[references.get(other, itself)].add(each.reference)
    if inside:
        whole, *parts = (each["bom-ref"] for each in inside)
        depends[itself].add(whole)
        depends[whole] = set(parts)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest['content'])}",
        "version": 1,
        "metadata": {
            "timestamp": made.isoformat(),
            "component": {
                "type": "application",
                "bom-ref": itself,
                "name": "otelauto",
                "version": metadata["Version"],
                "purl": itself,
                "hashes": [digest],
                "licenses": [{"expression": metadata["License-Expression"]}],
            },
        },
        "components": [*inside, *map(_python, locked)],
        "dependencies": [
            {"ref": reference, "dependsOn": sorted(needed)}
            for reference, needed in sorted(depends.items())
        ],
    }


def text_of(wheel: Path, sources: Path = SOURCES) -> str:
    """The document as it is written to a file."""
    return json.dumps(document(wheel, sources), indent=2) + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(text_of(*map(Path, sys.argv[1:])))
    except SbomError as error:
        sys.exit(str(error))
