"""The test suite on each supported pair of Python and Django: ``nox``, or ``make matrix``.

A Python that is not installed is skipped, and nox says so; where ``CI`` is set, it is an error.
"""

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
TEST = nox.project.dependency_groups(PYPROJECT, "test")

PAIRS = [
    ("3.11", "5.2"),
    ("3.12", "5.2"),
    ("3.12", "6.0"),
    ("3.13", "6"),  # the newest of them
]
WANTED = {"5.2": "django~=5.2.0", "6.0": "django~=6.0.0", "6": "django~=6.0"}
LOWEST = [
    "django==5.2",
    "django-environ==0.11",
    "djangorestframework==3.18.2",
    "requests==2.32.2",
    "urllib3==2.3",
    "aiohttp==3.12",
    "uvicorn==0.34",
    "gunicorn==23.0",
]

VERSIONS = "import sys, django; print('Python', sys.version, 'Django', django.get_version())"

# Exit codes of pytest: of a run with failures, and of one more where nothing had failed.
SOME_FAILED, NONE_FAILED = 1, 5

nox.options.sessions = ["tests", "lowest"]
nox.options.reuse_venv = "yes"


@nox.session
@nox.parametrize("python,django", PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """Run the tests with one Python and one Django."""
    session.install("-e", ".", *TEST, WANTED[django])
    _pytest(session)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest libraries that pyproject.toml allows."""
    session.install("-e", ".", *TEST, *LOWEST)
    _pytest(session)


def _pytest(session: nox.Session) -> None:
    """Run the tests in several processes, and once more, alone, those that failed there."""
    pytest = ("python", "-m", "pytest", *session.posargs)
    again = ("--last-failed", "--last-failed-no-failures", "none")
    session.run("python", "-c", VERSIONS)
    session.run(*pytest, "--numprocesses", "4", success_codes=[0, SOME_FAILED])
    session.run(*pytest, *again, success_codes=[0, NONE_FAILED])
