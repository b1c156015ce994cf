"""scripts/audit.py with what pip-audit and npm audit print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_benchmark import import_script

audit = import_script("audit")

CLEAN = {"name": "pillow", "version": "13.0.0", "vulns": []}
SKIPPED = {"name": "pillow", "skip_reason": "Dependency not found on PyPI and could not be audited: pillow (13.0.0)"}
WEAK = {"name": "pillow", "version": "9.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.1"], "aliases": []}]}
NPM_TOTAL = {"metadata": {"dependencies": {"total": 40}}}


def pip_output(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": [*packages, {"name": "odkeras", "skip_reason": "not on PyPI"}], "fixes": []})


@pytest.mark.parametrize(
    ("packages", "text", "status"),
    [
        ([CLEAN], "pip-audit: 0 known vulnerabilities in 1 packages", 0),
        ([WEAK, CLEAN], "pip-audit: 1 known vulnerabilities in 2 packages\n  pillow 9.0: PYSEC-1, fixed in 9.1", 1),
        ([SKIPPED], "pip-audit: no package was checked\n  NOT CHECKED: 1 packages, such as pillow: Dependency not", 3),
        ([CLEAN, SKIPPED], "pip-audit: 0 known vulnerabilities in 1 packages\n  NOT CHECKED: 1 packages, such as", 3),
    ],
    ids=["clean", "weak", "no service", "a part"],
)
def test_what_pip_audit_says(packages: list[dict[str, Any]], text: str, status: int) -> None:
    found = audit.read_pip_audit(pip_output(*packages), "")
    assert str(found).startswith(text)
    assert audit.exit_status([found]) == status


@pytest.mark.parametrize(
    ("output", "text", "status"),
    [
        (json.dumps(NPM_TOTAL), "npm audit: 0 known vulnerabilities in 40 packages", 0),
        (
            json.dumps({**NPM_TOTAL, "vulnerabilities": {"preact": {"range": "<9", "severity": "high"}}}),
            "npm audit: 1 known vulnerabilities in 40 packages\n  preact <9: high",
            1,
        ),
        (
            json.dumps({"message": "405 Method Not Allowed", "error": {}}),
            "npm audit: no package was checked\n  NOT CHECKED: the service was not reached: 405 Method Not Allowed",
            3,
        ),
        ("", "npm audit: no package was checked\n  NOT CHECKED: the service was not reached: no such host", 3),
        ("[]", "npm audit: no package was checked\n  NOT CHECKED: the service was not reached: no such host", 3),
    ],
    ids=["clean", "weak", "refused", "nothing", "odd"],
)
def test_what_npm_audit_says(output: str, text: str, status: int) -> None:
    found = audit.read_npm_audit(output, "trace\nno such host\n")
    assert str(found) == text
    assert audit.exit_status([audit.Audit("pip-audit", 1), found]) == status


def test_the_second_service_is_asked_when_the_first_knows_nothing(tmp_path: Path) -> None:
    """pip-audit's status is 0 if an index has no vulnerability service: that must not pass for a clean audit."""
    tool = tmp_path / "pip-audit"
    answers = {"pypi": pip_output(SKIPPED), "osv": pip_output(CLEAN)}
    code = f"import sys\nprint({answers!r}[sys.argv[sys.argv.index('--vulnerability-service') + 1]])\n"
    tool.write_text(f"#!{sys.executable}\n{code}")
    tool.chmod(0o755)
    assert audit.audit_python(str(tool)) == audit.Audit("pip-audit", 1)
    tool.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('cannot resolve the host')\n")
    unreached = "the service was not reached: cannot resolve the host"
    assert audit.audit_python(str(tool)).unchecked == f"pypi: {unreached}; osv: {unreached}"
    assert "cannot be run" in audit.audit_python(str(tmp_path / "missing")).unchecked
