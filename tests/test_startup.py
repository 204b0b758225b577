"""The start-up hook with a stand-in host, in fresh interpreters: quick, and free of everything else."""

import os
import subprocess
import sys
import textwrap

import pytest
from helpers import REPOSITORY

HOOK = REPOSITORY / "startup"
START = "import _anomalib_lamp_startup; _anomalib_lamp_startup.install();"


@pytest.fixture
def host(tmp_path):
    """A folder with a stand-in for anomalib and for our package; both say when they are executed."""
    for name, code in {
        "anomalib": "print('anomalib')",
        "anomalib/data": "print('data')",
        "anomalib/models": "print('models'); Padim = 1",
        "anomalib_lamp": "import importlib as i; i.import_module('anomalib.models').LampAE = 2; print('lamp')",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    return tmp_path


def run(host, code, **environment):
    """Return stdout words and stderr of a fresh interpreter with the hook on its path."""
    variables = {key: value for key, value in os.environ.items() if key != "ANOMALIB_LAMP_AUTOLOAD"}
    result = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(code)],
        env={**variables, "PYTHONPATH": f"{host}{os.pathsep}{HOOK}", **environment},
        cwd=host,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split(), result.stderr


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("pass", []),
        ("import anomalib", ["anomalib"]),
        ("import anomalib.data", ["anomalib", "data"]),
        ("import anomalib.models", ["anomalib", "models", "lamp"]),
        ("from anomalib.models import Padim, LampAE", ["anomalib", "models", "lamp"]),
        ("import anomalib_lamp, anomalib.models", ["anomalib", "models", "lamp"]),
        ("import anomalib.models, anomalib_lamp", ["anomalib", "models", "lamp"]),
    ],
)
def test_registers_right_after_the_hosts_models_and_never_else(host, statement, expected):
    words, errors = run(host, START + statement)
    assert (words, errors) == (expected, "")


def test_installed_twice_as_in_a_virtual_environment_registers_once(host):
    code = START + START + "import anomalib.models, sys; print(sum('Register' in str(f) for f in sys.meta_path))"
    assert run(host, code) == (["anomalib", "models", "lamp", "1"], "")


def test_a_look_before_the_import_does_not_use_the_hook_up(host):
    words, _ = run(host, START + "import importlib.util as u; u.find_spec('anomalib.models'); import anomalib.models")
    assert words == ["anomalib", "models", "lamp"]


def test_registers_when_a_failed_import_of_the_host_succeeds_later(host):
    (host / "anomalib" / "models" / "__init__.py").write_text("import sys; sys.fixed")
    code = f"""
        {START}
        import sys
        try:
            import anomalib.models
        except AttributeError:
            sys.fixed = True
        import anomalib.models
    """
    assert run(host, code)[0] == ["anomalib", "lamp"]


def test_switched_off_by_its_variable(host):
    words, _ = run(host, START + "import anomalib.models", ANOMALIB_LAMP_AUTOLOAD="0")
    assert words == ["anomalib", "models"]


def test_a_failing_registration_is_one_line(host):
    (host / "anomalib_lamp" / "__init__.py").write_text("raise RuntimeError('out of order')")
    words, errors = run(host, START + "import anomalib.models; print('on')")
    assert words == ["anomalib", "models", "on"]
    assert errors == "anomalib_lamp was not registered: RuntimeError: out of order\n"


def test_a_broken_host_raises_its_own_error(host):
    (host / "anomalib" / "models" / "__init__.py").write_text("raise OSError('host is broken')")
    words, _ = run(host, START + "\ntry: import anomalib.models\nexcept OSError as error: print(error.args[0])")
    assert words == ["anomalib", "host", "is", "broken"]


def test_a_missing_host_stays_missing(host):
    code = (
        START
        + "\ntry: import anomalib.nothing, anomalib.models\nexcept ModuleNotFoundError as error: print(error.name)"
    )
    assert run(host, code)[0][-1] == "anomalib.nothing"


def test_loads_no_module_that_python_has_not_loaded_itself(host):
    code = f"""
        import sys, os  # site imports os at every ordinary start
        before = set(sys.modules)
        {START}
        print(*set(sys.modules) - before)
    """
    assert run(host, code)[0] == ["_anomalib_lamp_startup"]


def test_files_for_both_start_up_mechanisms_name_the_same_function():
    assert (HOOK / "anomalib_lamp_startup.pth").read_text().strip() == START.rstrip(";")
    assert (HOOK / "anomalib_lamp_startup.start").read_text().strip() == "_anomalib_lamp_startup:install"
