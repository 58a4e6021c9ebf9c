"""What pyproject.toml cannot say: in a wheel our packages lie inside one named bootproof.

The repository has them at the top (DESIGN's folders); names like `loader` and `harness` would
collide in somebody else's site-packages, or be shadowed by that somebody's own. So each
module is copied to bootproof/, and its absolute imports of our packages are rewritten on the way.
Nothing else is changed, line numbers included. Strings that name our modules are not rewritten:
code says `__name__` or `__package__`.
"""

from __future__ import annotations

import ast
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.errors import SetupError

INSIDE = ("loader", "harness", "kernels", "scenarios")
OUTER = "bootproof"
NOT_SHIPPED = ("tests", "bench")


def namespaced(source: str, name: str) -> str:
    """The module with `from loader…` as `from bootproof.loader…`, and so on.

    Raises SetupError for `import loader`, which would bind another name.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import):
            if ours := [alias.name for alias in node.names if _root(alias.name) in INSIDE]:
                raise SetupError(
                    f"{name}:{node.lineno}: write `from … import`, not `import {ours[0]}`"
                )
        elif isinstance(node, ast.ImportFrom) and not node.level and _root(node.module) in INSIDE:
            line = lines[node.lineno - 1].encode()  # col_offset counts bytes
            head, rest = line[: node.col_offset].decode(), line[node.col_offset :].decode()
            lines[node.lineno - 1] = head + rest.replace(
                f"from {node.module}", f"from {OUTER}.{node.module}", 1
            )
    return "".join(lines)


def needs_the_clone(source: str, name: str) -> bool:
    """Does a module import what no wheel has?"""
    imports = (n for n in ast.parse(source, name).body if isinstance(n, ast.ImportFrom))
    return any(_root(node.module) in NOT_SHIPPED for node in imports)


def _root(module: str | None) -> str:
    return (module or "").partition(".")[0]


class BuildInside(build_py):  # type: ignore[misc] # untyped
    """Copies modules with their imports rewritten; scenarios that need the clone stay out."""

    def run(self) -> None:
        if self.editable_mode:
            raise SetupError("bootproof cannot be installed in editable mode; use ./bootproof")
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        found = super().find_package_modules(package, package_dir)
        return [m for m in found if not needs_the_clone(Path(m[2]).read_text("utf-8"), m[2])]

    def build_module(self, module: str, module_file: str, package: str) -> object:
        copied = super().build_module(module, module_file, package)
        target = Path(self.get_module_outfile(self.build_lib, package.split("."), module))
        target.write_text(namespaced(Path(module_file).read_text("utf-8"), module_file), "utf-8")
        return copied


packages = [name for top in INSIDE for name in find_packages(include=[top, f"{top}.*"])]
# Not at the top: there it would be found beside our packages, as if bootproof were installed.
METADATA = Path("build")
METADATA.mkdir(exist_ok=True)
setup(
    options={"egg_info": {"egg_base": str(METADATA)}},
    cmdclass={"build_py": BuildInside},
    packages=[OUTER, *(f"{OUTER}.{name}" for name in packages)],
    package_dir={
        OUTER: f"installed/{OUTER}",
        **{f"{OUTER}.{name}": name.replace(".", "/") for name in packages},
    },
    package_data={
        OUTER: ["py.typed"],
        f"{OUTER}.loader": ["guest/*"],
        f"{OUTER}.harness": ["*.txt", "report/templates/*"],
        f"{OUTER}.kernels": ["*.toml", "*.lock"],
        f"{OUTER}.scenarios": ["*.toml", "more/*.toml", "*.ini"],
    },
)
