"""Build rules: the three folders become ``cellseg.train``, ``cellseg.export`` and ``cellseg.runtime``.

``cellseg`` is a namespace package without a folder of its own, so an installation adds nothing
called ``train`` to site-packages. Every ``csrc/NAME.pyx`` becomes ``cellseg.runtime.kernels.NAME``.
Static metadata lives in ``pyproject.toml``.
"""

import os
import platform
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

PARTS = ("runtime", "train", "export")

packages = [
    f"cellseg.{name}"
    for name in find_packages(include=[pattern for part in PARTS for pattern in (part, f"{part}.*")])
]

# A wheel for others must run on any x86-64; `CELLSEG_NATIVE=1 make …` tunes for this very machine.
flags = ["-O3", "-g0"]
if os.environ.get("CELLSEG_NATIVE") == "1":
    flags.append("-march=native")
elif platform.machine() == "x86_64" and platform.system() == "Linux":
    flags += ["-march=x86-64-v2", "-mtune=generic"]

extensions = [
    Extension(
        f"cellseg.runtime.kernels.{source.stem}",
        [str(source)],
        include_dirs=["csrc"],
        depends=["csrc/widths.h"],
        extra_compile_args=flags,
    )
    for source in sorted(Path("csrc").glob("*.pyx"))
]

setup(
    packages=packages,
    package_dir={f"cellseg.{part}": part for part in PARTS},
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
