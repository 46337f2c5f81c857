# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: no broken link or anchor, nothing loaded from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.places import ROOT

MKDOCS = (sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MKDOCS, config, "--site-dir", site], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", name="site")
def fixture_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built now; a warning of MkDocs is an error."""
    site = tmp_path_factory.mktemp("site") / "site"
    done = build(ROOT / "mkdocs.yml", site)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def test_every_page_is_there(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}
    assert not {page for page in pages if not (site / f"{page}.html").exists()}
    home = (site / "index.html").read_text()
    assert not {page for page in pages if f'href="{page}.html"' not in home}, (
        "not in the navigation"
    )
    assert (site / "repository" / "ARCHITECTURE.html").exists()


def test_links_to_files_of_the_repository_show_them(site: Path) -> None:
    quickstart = (site / "quickstart.html").read_text()
    assert 'href="repository/examples/instrumenter-config.yml.html"' in quickstart
    shown = (site / "repository" / "examples" / "instrumenter-config.yml.html").read_text()
    assert "otel_metrics_export" in shown
    architecture = (site / "repository" / "ARCHITECTURE.html").read_text()
    assert 'href="benches/RESULTS.html"' in architecture


def test_pictures_are_drawn_by_the_sites_own_script(site: Path) -> None:
    assert (site / "assets" / "mermaid.min.js").stat().st_size > 1_000_000
    assert 'src="assets/mermaid.min.js"' in (site / "direct-mode.html").read_text()
    assert "mermaid.min.js" not in (site / "config.html").read_text()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"',
                            page.read_text())  # fmt: skip
        assert loaded
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)], page.name


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "tools/site/hooks.py", "docs/assets/site.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    pictures = tmp_path / ".build" / "site" / "mermaid.min.js"
    pictures.parent.mkdir(parents=True)
    pictures.touch()
    (tmp_path / "README.md").write_text("# Home\n")
    (tmp_path / "docs" / "README.md").write_text("# Index\n\n- [Page](page.md)\n")
    page, right = tmp_path / "docs" / "page.md", "# Page\n\n[x](page.md#page)\n"
    page.write_text(f"{right}[y](nothing.md) [z](page.md#nowhere) [u](../bpf/nothing.h)\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    for complaint in ("nothing.md", "#nowhere", "bpf/nothing.h"):
        assert complaint in done.stderr
    page.write_text(right)
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
