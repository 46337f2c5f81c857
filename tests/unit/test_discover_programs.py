# SPDX-License-Identifier: Apache-2.0
"""What a command line says about the program that runs."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from otelauto.discover import elf
from otelauto.discover.programs import Program, describe


def program(executable: str, line: str | list[str], directory: str = "/srv/shop") -> Program:
    argv = line.split() if isinstance(line, str) else line
    return describe(executable, lambda: argv, lambda: directory)


PYTHON, NODE, JAVA = "/usr/bin/python3.11", "/usr/bin/node", "/usr/lib/jvm/bin/java"


@pytest.mark.parametrize(
    ("executable", "line", "name"),
    [
        ("/usr/sbin/nginx", "nginx: master process /usr/sbin/nginx", "nginx"),
        ("/srv/shop.v2", "/srv/shop.v2 --port 80", "shop.v2"),
        ("/memfd:worker", "worker", "worker"),
        (PYTHON, "python3 app.py", "app"),
        (PYTHON, "python3 -u -W ignore -X dev /srv/shop/app.py --port 80", "app"),
        (PYTHON, "python3 -Wignore -Xdev ./app.pyc", "app"),
        (PYTHON, "python3 -- app.py", "app"),
        (PYTHON, "python3 -m pkg", "pkg"),
        (PYTHON, "python3 -um pkg.__main__ -m other", "pkg"),
        (PYTHON, "python3 -mhttp.server 8000", "http.server"),
        (PYTHON, "python3 manage.py runserver", "manage"),
        (PYTHON, "python3 /srv/billing/__main__.py", "billing"),
        (PYTHON, "python3 /opt/tool", "tool"),
        (PYTHON, "python3", "python3.11"),
        (PYTHON, ["python3", "-c", "import x; x.run()"], "python3.11"),
        (PYTHON, ["python3", "-Ic", "import x", "app.py"], "python3.11"),
        (PYTHON, "python3 -", "python3.11"),
        (PYTHON, "python3 /dev/fd/3", "python3.11"),
        (PYTHON, [], "python3.11"),
        ("/usr/bin/pypy3.10", "pypy3 app.py", "app"),
        (PYTHON, "python3 /usr/bin/gunicorn app:app", "app"),
        (PYTHON, "python3 /usr/bin/gunicorn -w 4 -b localhost:8000 shop.wsgi:application", "shop"),
        (PYTHON, "python3 /usr/bin/gunicorn --preload shop.wsgi:make()", "shop"),
        (PYTHON, "python3 /usr/bin/gunicorn app:app -c python:conf", "app"),
        (PYTHON, "python3 /usr/bin/gunicorn -c python:conf app:app", "app"),
        (PYTHON, "python3 /usr/bin/gunicorn -w 4 shop.wsgi", "shop"),
        (PYTHON, "python3 /usr/bin/gunicorn -w 4", "gunicorn"),
        (PYTHON, "python3 -m uvicorn --port 8000 main:app", "main"),
        (PYTHON, "python3 /usr/bin/uvicorn main:app --host 127.0.0.1", "main"),
        (PYTHON, "python3 /usr/bin/flask --app hello run -p 80", "hello"),
        (PYTHON, "python3 /usr/bin/flask --app=src/hello.py run", "hello"),
        (PYTHON, "python3 -m flask run", "flask"),
        (PYTHON, "python3 /usr/bin/fastapi run src/api.py", "api"),
        (PYTHON, "python3 /usr/bin/celery -A proj worker", "proj"),
        (PYTHON, ["gunicorn: master [shop.wsgi:application]"], "shop"),
        (PYTHON, ["gunicorn: worker [app:app]"], "app"),
        (NODE, "node server.js", "server"),
        (NODE, "node -r ./otel.cjs --max-old-space-size=99 dist/main.mjs", "main"),
        (NODE, "node /srv/shop/dist/index.js", "shop"),
        (NODE, "node index.js", "shop"),
        (NODE, "node .", "shop"),
        (NODE, ["node", "-e", "require('http')"], "node"),
        (NODE, ["next-server (v14.1.0)"], "next-server"),
        ("/usr/local/bin/deno", "deno run --allow-net api.ts", "api"),
        ("/usr/local/bin/bun", "bun run api.ts", "api"),
        (JAVA, "java -jar x.jar", "x"),
        (JAVA, "java -Xmx1g -javaagent:/a.jar -jar /opt/orders-1.4.2-SNAPSHOT.jar -m x", "orders"),
        (JAVA, "java -cp lib/*:a.jar com.x.Main --port 80", "com.x.Main"),
        (JAVA, "java @options -p mods -m shop/com.x.Main", "shop"),
        (JAVA, "java -version", "java"),
        ("/usr/bin/ruby3.1", "ruby -I lib x.rb", "x"),
        ("/usr/bin/ruby", "ruby bin/rails server", "rails"),
        ("/usr/bin/ruby", ["puma 6.4.0 (tcp://0.0.0.0:3000) [shop]"], "shop"),
        ("/usr/sbin/php-fpm8.2", ["php-fpm: master process (/etc/php.conf)"], "php-fpm"),
        ("/usr/bin/php8.2", "php -S 0.0.0.0:80 -t public router.php", "router"),
        ("/usr/bin/php", "php artisan serve", "artisan"),
        ("/usr/bin/dotnet", "dotnet /app/Shop.Api.dll", "Shop.Api"),
        ("/usr/bin/bash", "bash -e /opt/run.sh", "run"),
        ("/usr/bin/bash", ["bash", "-xc", "nc -l 80"], "bash"),
    ],
)  # fmt: skip
def test_names(executable: str, line: str | list[str], name: str) -> None:
    assert program(executable, line).name == name


@pytest.mark.parametrize(
    ("executable", "language"),
    [
        (PYTHON, "python"),
        (NODE, "nodejs"),
        (JAVA, "java"),
        ("/usr/bin/ruby", "ruby"),
        ("/usr/sbin/php-fpm8.2", "php"),
        ("/usr/bin/dotnet", "dotnet"),
        ("/usr/bin/bash", ""),
        ("/srv/shop", ""),
    ],
)
def test_languages_of_interpreters(executable: str, language: str) -> None:
    assert program(executable, "x y").language == language


def test_summaries_hold_no_arguments() -> None:
    found = program(PYTHON, "python3 -u app.py --password hunter2")
    assert found.summary == "python3.11 app.py"
    assert found.aliases == ("python3", "app.py")
    assert "hunter2" not in repr(program(PYTHON, ["python3", "-c", "login('hunter2')"]))


def test_arguments_of_native_programs_are_not_asked_for() -> None:
    def fail() -> tuple[str, ...]:
        raise AssertionError("asked")

    assert describe("/usr/sbin/nginx", fail, str).name == "nginx"


def test_go_is_told_by_its_sections(tmp_path: Path) -> None:
    source = tmp_path / "main.go"
    source.write_text('package main\n\nfunc main() { println("x") }\n')
    binary = tmp_path / "x"
    subprocess.run(["go", "build", "-ldflags=-s -w", "-o", binary, source], check=True)
    assert elf.language(str(binary)) == "go"


def test_other_files_are_unknown(tmp_path: Path) -> None:
    assert elf.language(sys.executable) == ""
    assert elf.language(str(tmp_path / "absent")) == ""
    assert elf.language(str(tmp_path)) == ""


def sections(*named: tuple[str, bytes]) -> bytes:
    """A 64-bit ELF file that has only these sections."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _ in named) + b".shstrtab\0"
    blobs, entries, offset = b"", [bytes(64)], 64
    for name, data in (*named, (".shstrtab", names)):
        place = names.index(name.encode())
        entries.append(struct.pack("<IIQQQQIIQQ", place, 1, 0, 0, offset, len(data), 0, 0, 1, 0))
        blobs += data
        offset += len(data)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(entries)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, offset, 0, 64, 0, 0, 64, count, count - 1)
    return head + blobs + b"".join(entries)


@pytest.mark.parametrize(
    ("named", "language"),
    [
        ((".text", b"x"), ""),
        ((".gopclntab", b"x"), "go"),
        ((".rodata", b"at /rustc/0123/library/core/src/option.rs"), "rust"),
        ((".rodata", b"nothing"), ""),
    ],
)
def test_sections_tell_the_language(
    tmp_path: Path, named: tuple[str, bytes], language: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(sections((".first", b"y"), named))
    assert elf.language(str(path)) == language


def test_any_cut_or_damaged_file_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = sections((".rodata", b"at /rustc/"), (".text", b"x"))
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert elf.language(str(path)) in ("", "rust")
        path.write_bytes(whole[:size] + b"\xff" * 8 + whole[size + 8 :])
        assert elf.language(str(path)) in ("", "rust")


@pytest.mark.parametrize("repeated", ["-1.1", "1.", "-1"])
def test_a_name_of_64_kib_has_no_version_looked_for(repeated: str) -> None:
    """Any process may write any argument: searching this one for a version would take minutes."""
    name = repeated * (65536 // len(repeated)) + "!"
    assert program(JAVA, ["java", "-jar", f"/srv/{name}.jar"]).name == name
    longest = "a" * (255 - len("-1.2.3")) + "-1.2.3"
    assert program(JAVA, ["java", "-jar", f"{longest}.jar"]).name == longest.removesuffix("-1.2.3")
