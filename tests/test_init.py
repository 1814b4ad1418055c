import os
import subprocess
import sys
from pathlib import Path

import oncoseg

HEAVY = ("torch", "monai", "pandas", "matplotlib", "sklearn", "nibabel", "scipy", "lightning_fabric")


def _heavy_modules_after(code: str) -> str:
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules], sep=',')"
    environment = os.environ | {"PYTHONPATH": str(Path(oncoseg.__file__).parents[1])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()[-1]


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert _heavy_modules_after("import oncoseg") == ""


def test_help_imports_nothing_heavy_and_not_even_pydantic() -> None:
    code = "from oncoseg.cli import main; main(['--help']); assert 'pydantic' not in sys.modules"
    assert _heavy_modules_after(code) == ""


def test_every_public_name_is_there_and_there_are_few() -> None:
    assert len(oncoseg.__all__) <= 20
    assert set(oncoseg.__all__) <= set(dir(oncoseg))
    for name in oncoseg.__all__:
        assert getattr(oncoseg, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(oncoseg, "no_such_name")
