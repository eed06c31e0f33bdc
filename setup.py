"""Build rules: the three folders become ``cellseg.train``, ``cellseg.export`` and ``cellseg.runtime``.

``cellseg`` is a namespace package without a folder of its own, so an installation adds nothing
called ``train`` to site-packages. Every ``csrc/NAME.pyx`` becomes ``cellseg.runtime.kernels.NAME``.
Static metadata lives in ``pyproject.toml``.

Kernels are compiled against Python's stable ABI, so that one wheel serves Python 3.11 and newer
(measured: no kernel is slower by it). Free-threaded Pythons have no stable ABI and get a build of their own.
"""

import os
import platform
import shutil
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

PARTS = ("runtime", "train", "export")
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")
INSTEAD = "or install a wheel of cellseg, which needs none (made by `make wheel`)."
OLDEST_PYTHON = (3, 11)  # the first whose stable ABI has the buffer protocol; as in pyproject.toml

packages = [
    f"cellseg.{name}"
    for name in find_packages(include=[pattern for part in PARTS for pattern in (part, f"{part}.*")])
]


def compile_flags(compiler_type: str) -> list[str]:
    """Return what the kernels are compiled with, by the kind of compiler that setuptools found."""
    if compiler_type == "msvc":
        return ["/O2", "/std:c11"]  # `restrict` is C11 to this compiler
    # Sums and products stay apart, so that ARM, which could fuse them, finds the same cells as x86.
    flags = ["-O3", "-g0", "-ffp-contract=off"]
    # A wheel for others must run on any x86-64; `CELLSEG_NATIVE=1 make …` tunes for this very machine.
    if os.environ.get("CELLSEG_NATIVE") == "1":
        flags.append("-march=native")
    elif platform.machine() == "x86_64" and platform.system() == "Linux":
        flags += ["-march=x86-64-v2", "-mtune=generic"]
    return flags


class BuildKernels(build_ext):
    """Compile with the flags that suit the compiler; say in words when there is none."""

    def build_extensions(self) -> None:
        """Check for a compiler and Python's headers, then compile."""
        try:
            if self.compiler.compiler_type == "msvc":
                self.compiler.initialize()
            found = self.compiler.compiler_type == "msvc" or shutil.which(self.compiler.compiler_so[0])
        except PlatformError:
            found = None
        if not found:
            raise SystemExit(
                "cellseg: no C compiler was found, and its kernels must be compiled. Install one "
                "(Debian, Ubuntu: apt install gcc python3-dev; macOS: xcode-select --install; "
                f"Windows: Visual Studio Build Tools with C++), {INSTEAD}"
            )
        if not any((Path(folder) / "Python.h").exists() for folder in self.compiler.include_dirs):
            raise SystemExit(
                f"cellseg: Python.h was not found in {sysconfig.get_path('include')}; the kernels need it. "
                f"Install your Python's headers (Debian, Ubuntu: apt install python3-dev), {INSTEAD}"
            )
        for extension in self.extensions:
            extension.extra_compile_args = compile_flags(self.compiler.compiler_type)
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        """Put the kernels next to their stubs; remove older builds, which Python would take first."""
        super().copy_extensions_to_source()
        built = {Path(self.get_ext_filename(extension.name)).name for extension in self.extensions}
        for path in Path("runtime/kernels").iterdir():
            if path.suffix in {".so", ".pyd"} and path.name not in built:
                path.unlink()


extensions = [
    Extension(
        f"cellseg.runtime.kernels.{source.stem}",
        [str(source)],
        include_dirs=["csrc"],
        depends=["csrc/widths.h"],
        define_macros=[("Py_LIMITED_API", "0x{:02X}{:02X}0000".format(*OLDEST_PYTHON))] if STABLE_ABI else [],
        py_limited_api=STABLE_ABI,
    )
    for source in sorted(Path("csrc").glob("*.pyx"))
]

setup(
    packages=packages,
    package_dir={f"cellseg.{part}": part for part in PARTS},
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp{}{}".format(*OLDEST_PYTHON)}} if STABLE_ABI else {},
    ext_modules=cythonize(
        extensions,
        include_path=["csrc"],
        build_dir="build/cython",
        # Directives stand here because they would not reach a .pxd from a .pyx.
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": True,
        },
    ),
)
