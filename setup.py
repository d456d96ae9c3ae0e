"""Builds the compiled core. Everything else is declared in pyproject.toml.

Switches, by environment variable:
  FASTCACHE_TRACE=1      line tracing, for coverage of the Cython sources (slow)
  FASTCACHE_SANITIZE=x   compile with -fsanitize=x (address,undefined or thread); see tools/sanitize
  FASTCACHE_DEBUG=1      no optimisation, C assertions and Cython's reference checks on
What is built for a debug build of CPython isn't optimised much, whatever the switches.
"""

import os
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

trace, debug = (os.environ.get(f"FASTCACHE_{name}") == "1" for name in ("TRACE", "DEBUG"))
sanitize = os.environ.get("FASTCACHE_SANITIZE")

macros: list[tuple[str, str | None]] = []
compile_args: list[str] = []
link_args: list[str] = []
if sys.platform != "win32":
    compile_args = ["-O0", "-g", "-UNDEBUG"] if debug else ["-O3", "-fno-semantic-interposition", "-falign-functions=64"]
if hasattr(sys, "gettotalrefcount"):
    compile_args += ["-O1", "-g1"]
if trace:
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
if debug:
    macros += [("CYTHON_REFNANNY", "1")]
if sanitize:
    # -O1 keeps the reports legible and the build short; what is undefined ends the program, as a bad access does.
    compile_args += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g1"]
    link_args += [f"-fsanitize={sanitize}"]

# Every source is a dependency of every module: the .pxd files hold inline code, and what is listed is in the sdist.
sources = sorted(glob("src/fastcache/*.pyx"))
depends = sorted(glob("src/fastcache/*.p[yx][xd]") + glob("src/fastcache/*.h"))
extensions = [
    Extension(
        "fastcache." + os.path.basename(source)[:-4],
        [source],
        depends=depends,
        include_dirs=["src/fastcache"],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sources
]
setup(
    options={"build_ext": {"parallel": True}},  # one compiler for each processor
    ext_modules=cythonize(
        extensions,
        include_path=["src"],
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "freethreading_compatible": True, "linetrace": trace},
    )
)
