# SPDX-License-Identifier: Apache-2.0
"""Which program a process runs: its executable, or what an interpreter was told to run.

Rules, by example (the name is what a service is called if nobody says otherwise):

    /usr/sbin/nginx                          nginx
    python3 -u shop/app.py --port 80         app
    python3 -m http.server 8000              http.server
    python3 /srv/shop/__main__.py            shop           a directory's main file is the directory
    gunicorn -w 4 shop.wsgi:application      shop           the application, not its server
    uvicorn main:app                         main           likewise hypercorn, daphne, granian
    flask --app hello run                    hello
    gunicorn: master [shop.wsgi]             shop           a title written over the arguments
    node dist/server.js                      server
    node /srv/shop/dist/index.js             shop           build directories are passed over
    java -jar /opt/orders-1.4.2.jar          orders         a release must not rename the service
    java -cp lib/* com.x.Main                com.x.Main
    java -m shop/com.x.Main                  shop
    ruby bin/rails server                    rails
    php-fpm8.2, php artisan serve            php-fpm, artisan
    dotnet Shop.Api.dll                      Shop.Api
    python3 -c ..., node -e ...              python3, node  no program to name

The extension is dropped only where it is one that interpreters run, so ``shop.v2`` stays whole.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Program:
    """What a process runs.

    ``name`` has neither directory nor extension. ``summary`` is fit for people: the executable and
    the program, never the other arguments, which may hold secrets. ``language`` is a value of
    ``telemetry.sdk.language`` or empty. ``aliases`` are names beside the executable's path that a
    user may select the process by: the interpreter and the program as they were typed.
    """

    name: str
    summary: str
    language: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Interpreter:
    """How an interpreter's command line is read."""

    executable: re.Pattern[str]
    language: str
    valued: frozenset[str] = frozenset()  # options that take the next argument
    entries: frozenset[str] = frozenset()  # options whose value is the program
    code: frozenset[str] = frozenset()  # options after which there is no program
    commands: frozenset[str] = frozenset()  # words before the program
    clustered: bool = False  # "-um module", "-mmodule"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INTERPRETERS: Final = (
    _Interpreter(
        re.compile(r"(python|pypy)[\d.]*[a-z]*"),
        "python",
        valued=_words("-W -X --check-hash-based-pycs"),
        entries=_words("-m"),
        code=_words("-c -"),
        clustered=True,
    ),
    _Interpreter(
        re.compile(r"node(js)?\d*"),
        "nodejs",
        valued=_words(
            "-r --require --import --loader --experimental-loader -C --conditions --title "
            "--env-file --inspect-port --max-http-header-size"
        ),
        code=_words("-e --eval -p --print -pe -"),
    ),
    _Interpreter(
        re.compile(r"bun|deno"),
        "nodejs",
        valued=_words("-c --config --import-map --preload -r"),
        code=_words("-e --eval eval"),
        commands=_words("run serve --bun"),
    ),
    _Interpreter(
        re.compile(r"java"),
        "java",
        valued=_words(
            "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules "
            "--add-exports --add-opens --add-reads --limit-modules --patch-module --source "
            "--enable-native-access"
        ),
        entries=_words("-jar -m --module"),
    ),
    _Interpreter(
        re.compile(r"j?ruby[\d.]*|truffleruby"),
        "ruby",
        valued=_words("-I -r -C -E --encoding"),
        code=_words("-e -"),
        clustered=True,
    ),
    _Interpreter(
        re.compile(r"php[\d.]*"),
        "php",
        valued=_words("-c -d -S -t -z --php-ini --define --server --docroot"),
        entries=_words("-f --file"),
        code=_words("-r --run"),
    ),
    _Interpreter(re.compile(r"dotnet"), "dotnet", commands=_words("exec")),
    _Interpreter(
        re.compile(r"perl[\d.]*"), "", valued=_words("-I"), code=_words("-e -E -"), clustered=True
    ),
    _Interpreter(
        re.compile(r"(ba|da|z|k)?sh|busybox"), "", valued=_words("-o"), code=_words("-c"),
        clustered=True,
    ),
)  # fmt: skip
_NATIVE_LANGUAGES: Final = ((re.compile(r"php-fpm[\d.]*"), "php-fpm", "php"),)

# Programs whose service is the application they are told to serve.
_APPLICATION_SERVERS: Final = _words(
    "gunicorn uvicorn hypercorn daphne granian waitress-serve flask fastapi celery"
)
_APPLICATION = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*(\(.*\))?")
_MODULE = re.compile(r"[A-Za-z_][\w.]*|[\w./-]*\.py")
_APPLICATION_OPTIONS = _words("--app -A")
_NOT_APPLICATION_OPTIONS = _words("-c --config -k --worker-class --logger-class --bind -b")
_SUBCOMMANDS = _words("run dev serve worker")
_SERVER_SUFFIX = re.compile(r"(?<=.)\.[aw]sgi$")  # Django's project.wsgi is the project

_EXTENSIONS = _words(
    ".py .pyc .pyz .js .mjs .cjs .ts .mts .tsx .jsx .rb .ru .php .phar .pl .jar .war .java .dll .sh"
)
_MAIN_FILES = _words("__main__ index")
_BUILD_DIRECTORIES = _words("dist build src lib out bin public .output server")
_NAME_MAX: Final = 255  # bytes of a file's name on Linux; an argument may be longer
_JAR_VERSION = re.compile(r"[-_]v?\d+(\.\d+)+([-.+_][\w.+-]*)?$")
_TITLE_LABEL = re.compile(r"\[([^\[\]]+)\]$")
_TITLE_WORD = re.compile(r"[^\s:]+")


def describe(
    executable: str, arguments: Callable[[], Sequence[str]], working_directory: Callable[[], str]
) -> Program:
    """The program of a process, from its executable's path.

    ``arguments`` (from the program's own name on) and ``working_directory`` are asked for only
    where a name needs them.
    """
    base = posixpath.basename(executable).removeprefix("memfd:")
    for pattern, name, language in _NATIVE_LANGUAGES:
        if pattern.fullmatch(base):
            return Program(name, base, language)
    interpreter = next((i for i in _INTERPRETERS if i.executable.fullmatch(base)), None)
    if interpreter is None:
        return Program(base, base)
    return _interpreted(interpreter, base, arguments(), working_directory)


def _interpreted(
    interpreter: _Interpreter,
    base: str,
    argv: Sequence[str],
    working_directory: Callable[[], str],
) -> Program:
    if _is_title(interpreter, argv):
        name = _title_name(argv[0])
        return Program(name, f"{base} {name}", interpreter.language, (name,))
    typed = (argv[0],) if argv else ()
    option, found, rest = _program(interpreter, argv[1:])
    if not found or found.startswith(("/dev/fd/", "/proc/")):
        return Program(base, base, interpreter.language, typed)
    name = _name(option, found, working_directory)
    if name in _APPLICATION_SERVERS:
        name = _application(rest) or name
    summary = " ".join(part for part in (base, option, found) if part)
    return Program(name or base, summary, interpreter.language, (*typed, found))


def _program(interpreter: _Interpreter, arguments: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """(the option that named it or empty, the program or empty, the arguments after it)."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        following = arguments[position] if position < len(arguments) else ""
        if argument == "--":
            return "", following, arguments[position + 1 :]
        option, value = _option(interpreter, argument)
        if option in interpreter.code:
            break
        if option in interpreter.entries:
            used = 0 if value else 1
            return option, value or following, arguments[position + used :]
        if option in interpreter.valued:
            position += 0 if value else 1
        elif not argument.startswith(("-", "@")) and argument not in interpreter.commands:
            return "", argument, arguments[position:]
    return "", "", ()


def _option(interpreter: _Interpreter, argument: str) -> tuple[str, str]:
    """Split ``-umhttp.server`` at the first option with a value: ``("-m", "http.server")``."""
    if not interpreter.clustered or not re.match(r"-[A-Za-z]{2}", argument):
        return argument, ""
    for position, letter in enumerate(argument[1:], 2):
        option = f"-{letter}"
        if option in interpreter.valued | interpreter.entries | interpreter.code:
            return option, argument[position:]
    return argument, ""


def _name(option: str, program: str, working_directory: Callable[[], str]) -> str:
    if option == "-m" or option == "--module":
        # Python's package.module; Java's module/class is named by the module.
        return program.partition("/")[0].removesuffix(".__main__")
    stem, extension = posixpath.splitext(posixpath.basename(program.rstrip("/")))
    if extension not in _EXTENSIONS:
        stem += extension
    if extension in (".jar", ".war"):
        return _JAR_VERSION.sub("", stem) if len(stem) <= _NAME_MAX else stem
    if stem in _MAIN_FILES or stem in (".", ".."):
        return _directory_name(posixpath.join(working_directory(), program), stem) or stem
    return stem


def _directory_name(path: str, stem: str) -> str:
    """The directory a main file stands for, above those that builds make."""
    path = posixpath.normpath(path)
    directories = path if stem in (".", "..") else posixpath.dirname(path)
    names = [part for part in directories.split("/") if part]
    while len(names) > 1 and names[-1] in _BUILD_DIRECTORIES:
        names.pop()
    return names[-1] if names else ""


def _application(arguments: Sequence[str]) -> str:
    """What an application server was told to serve, as a module name; empty if not found."""
    pairs = list(zip(("", *arguments), arguments, strict=False))
    for previous, argument in pairs:
        if previous in _APPLICATION_OPTIONS:
            return _application_name(argument)
        if argument.startswith("--app="):
            return _application_name(argument.removeprefix("--app="))
    applications = [
        (previous.startswith("-"), argument)
        for previous, argument in pairs
        if _APPLICATION.fullmatch(argument) and previous not in _NOT_APPLICATION_OPTIONS
    ]
    if applications:
        return _application_name(min(applications, key=lambda found: found[0])[1])
    modules = (
        argument
        for previous, argument in pairs
        if not previous.startswith("-")
        and _MODULE.fullmatch(argument)
        and argument not in _SUBCOMMANDS
    )
    return _application_name(next(modules, ""))


def _application_name(application: str) -> str:
    module = application.partition(":")[0]
    if "/" in module or module.endswith(".py"):
        module = posixpath.basename(module).removesuffix(".py")
    return _SERVER_SUFFIX.sub("", module)


def _is_title(interpreter: _Interpreter, argv: Sequence[str]) -> bool:
    """Has the process written a title over its arguments (setproctitle, ``$0 =`` in Ruby)?"""
    if len(argv) != 1:
        return False
    return not interpreter.executable.fullmatch(posixpath.basename(argv[0].rstrip()))


def _title_name(title: str) -> str:
    """``gunicorn: master [shop:app]`` and ``puma 6.4 (tcp://...) [shop]`` are shop."""
    if label := _TITLE_LABEL.search(title):
        return _application_name(label[1])
    word = _TITLE_WORD.search(title)
    return posixpath.basename(word[0]) if word else title
