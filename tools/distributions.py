"""What is shipped: the list of wheels, and what must and must not be in a wheel or an sdist. It builds nothing.

    python tools/distributions.py dist/*            check these files; print their names and sizes
    python tools/distributions.py --whole dist/*    and that none is missing of the sdist and the promised wheels
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t"]
# What cibuildwheel calls a platform and an architecture: what the identifiers of its builds end with.
PLATFORMS = {
    ("linux", "x86_64"): ["manylinux_x86_64", "musllinux_x86_64"],
    ("linux", "aarch64"): ["manylinux_aarch64", "musllinux_aarch64"],
    ("macos", "x86_64"): ["macosx_x86_64"],
    ("macos", "arm64"): ["macosx_arm64"],
    ("windows", "AMD64"): ["win_amd64"],
    ("windows", "ARM64"): ["win_arm64"],
}
# glibc 2.28 and musl 1.2: what the oldest distributions that are still maintained have.
NEWEST_LIBC = {"manylinux": (2, 28), "musllinux": (1, 2)}
MAX_BYTES = 1_000_000
SOURCES = (".c", ".h", ".pyx", ".pxd", ".html", ".pyc")
COMPILED = (".so", ".pyd")
# A compiled module may export its init function and Cython's own marks; any other name could clash with a library's.
OURS = re.compile(r"fastcache(_tiers-[^/]*\.dist-info)?/")
LIBRARIES = re.compile(r"(libc|libpthread|libm|ld-linux.*|libc\.musl.*)\.so")
EXPORTS = re.compile(r"PyInit_\w+|__pyx_\w+|_init|_fini")


def identifiers(platform: str, architecture: str) -> list[str]:
    """List what cibuildwheel must build there, in its words."""
    return [f"{python}-{suffix}" for suffix in PLATFORMS[platform, architecture] for python in PYTHONS]


def identifier(wheel: Path) -> str:
    """Name a wheel as cibuildwheel does: cp313-manylinux_x86_64."""
    _, python, abi, platform = wheel.name.removesuffix(".whl").rsplit("-", 3)
    python += "t" if abi.endswith("t") else ""
    return f"{python}-" + re.sub(r"^(manylinux|musllinux|macosx)(_\d+_\d+|\d+)", r"\1", platform.split(".")[0])


def problems(file: Path) -> list[str]:
    """Say what is wrong with a wheel or an sdist; nothing if all is well."""
    return problems_of_wheel(file) if file.suffix == ".whl" else problems_of_sdist(file)


def problems_of_sdist(file: Path) -> list[str]:
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py"}
    for pattern in ("fastcache/*.py*", "src/fastcache/*.p[yx][xd]", "tests/**/*.py", "docs/*.md", "examples/*.py"):
        wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
    wanted = {name for name in wanted if not name.endswith((*COMPILED, ".pyc"))}
    found = [f"{name} is missing" for name in sorted(wanted - names)]
    return found + [f"{name} is generated" for name in sorted(names) if name.endswith((*COMPILED, ".c", ".html", ".pyc"))]


def problems_of_wheel(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        compiled = {name: archive.read(name) for name in sorted(names) if name.endswith(COMPILED)}
    found = [f"{name} doesn't belong in a wheel" for name in sorted(names) if name.endswith(SOURCES)]
    found += [f"{name} is outside of the package" for name in sorted(names) if not OURS.match(name)]
    package = (ROOT / "fastcache").iterdir()
    wanted = {f"fastcache/{path.name}" for path in package if path.suffix in (".py", ".pyi", ".typed")}
    found += [f"{name} is missing" for name in sorted(wanted - names)]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        found.append("the license is missing")
    modules = {path.stem for path in (ROOT / "src" / "fastcache").glob("*.pyx")}
    if modules != (have := {name.split("/")[-1].split(".")[0] for name in compiled}):
        found.append(f"it has the compiled modules {sorted(have)}, and should have {sorted(modules)}")
    if file.stat().st_size > MAX_BYTES:
        found.append(f"it has {file.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    for libc, major, minor in re.findall(r"(manylinux|musllinux)_(\d+)_(\d+)", file.name):
        if (int(major), int(minor)) > NEWEST_LIBC[libc]:
            found.append(f"it needs {libc}_{major}_{minor}, newer than {NEWEST_LIBC[libc]}")
    if file.name.endswith(("-linux_x86_64.whl", "-linux_aarch64.whl")):
        found.append("it is for one Linux only; auditwheel repair makes it fit for others")
    for name, content in compiled.items():
        if content.startswith(b"\x7fELF"):
            found += [f"{name} {problem}" for problem in problems_of_elf(content)]
    return found


def problems_of_elf(content: bytes) -> list[str]:
    from elftools.elf.elffile import ELFFile  # with auditwheel, on Linux only

    elf = ELFFile(BytesIO(content))
    found = ["holds debugging information"] if elf.get_section_by_name(".debug_info") else []
    for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
        exported = symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK")
        if exported and not EXPORTS.fullmatch(symbol.name):
            found.append(f"exports {symbol.name}")
    for tag in elf.get_section_by_name(".dynamic").iter_tags():
        if tag.entry.d_tag == "DT_NEEDED" and not LIBRARIES.match(tag.needed):
            found.append(f"needs {tag.needed}")
        if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
            found.append("has a path for libraries in it")
    return found


def table(files: list[Path]) -> str:
    """List the files with their sizes in bytes, and the sum."""
    width = max(len(file.name) for file in files)
    rows = [f"  {file.name:{width}}  {file.stat().st_size:>9,}" for file in files]
    return "\n".join([*rows, f"  {f'{len(files)} files':{width}}  {sum(file.stat().st_size for file in files):>9,}"])


def main(arguments: list[str]) -> int:
    files = sorted(Path(argument) for argument in arguments if argument != "--whole")
    wrong = [f"{file.name}: {problem}" for file in files for problem in problems(file)]
    if "--whole" in arguments:
        wheels = [identifier(file) for file in files if file.suffix == ".whl"]
        promised = [name for where in PLATFORMS for name in identifiers(*where)]
        wrong += [f"{name}: no wheel for it" for name in promised if name not in wheels]
        wrong += [f"{name}: not promised" for name in sorted(wheels) if name not in promised]
        wrong += [f"{name}: more than one wheel for it" for name in promised if wheels.count(name) > 1]
        wrong += [] if sum(file.name.endswith(".tar.gz") for file in files) == 1 else ["there must be one sdist"]
    print(table(files))
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
