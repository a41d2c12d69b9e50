"""The one thing that pyproject.toml cannot say: the kernels' shared library is compiled where a compiler is at hand.

A wheel with the library fits one platform and every Python 3; without a compiler the install goes on without it.
"""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

PACKAGE = "onnx_shift.runtime.kernels"
SOURCES = Path(__file__).parent / "runtime" / "kernels"


class BuildWithKernels(build_py):
    """Compile the library beside the package's Python files: in the checkout where these are used in place."""

    def run(self) -> None:
        super().run()
        building = runpy.run_path(str(SOURCES / "build.py"))
        folder = SOURCES if self.editable_mode else Path(self.build_lib, *PACKAGE.split("."))
        library = folder / building["library_name"]()
        library.unlink(missing_ok=True)  # of an earlier build
        try:
            building["build"](library)
        except RuntimeError as error:
            self.warn(f"installing without the sparse kernels, everything else works: {error}")


class WheelOfOnePlatform(bdist_wheel):
    """Any Python 3 fits, as the library is no extension module of it; any platform, too, without the library."""

    def get_tag(self) -> tuple[str, str, str]:
        library = Path(self.bdist_dir, *PACKAGE.split("."), runpy.run_path(str(SOURCES / "build.py"))["library_name"]())
        self.root_is_pure = not library.exists()
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": WheelOfOnePlatform})
