"""Ask pip-audit and npm audit for known vulnerabilities of the packages in .venv and in frontend/: `make audit`.

    python scripts/audit.py --pip-audit .venv/audit/bin/pip-audit

Exit status: 0 if there are none, 1 if there are some, 3 if a service was not reached, so that packages are unchecked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from build_page import FRONTEND, PageError, find

FOUND, UNCHECKED = 1, 3
_SERVICES = ("pypi", "osv")  # pip-audit's names
_TIMEOUT_S = 600
_NOT_ON_PYPI = {"odkeras"}


@dataclass
class Audit:
    """What one tool said.

    Args:
        tool: its name.
        checked: number of packages that its service knows.
        vulnerabilities: one line each.
        unchecked: why packages were not checked; "" if all were.
    """

    tool: str
    checked: int = 0
    vulnerabilities: list[str] = field(default_factory=list)
    unchecked: str = ""

    def __str__(self) -> str:
        known = f"{len(self.vulnerabilities)} known vulnerabilities in {self.checked} packages"
        lines = [f"{self.tool}: {known}" if self.checked else f"{self.tool}: no package was checked"]
        lines += [f"  {line}" for line in self.vulnerabilities]
        if self.unchecked:
            lines.append(f"  NOT CHECKED: {self.unchecked}")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--pip-audit", default="pip-audit", metavar="COMMAND", help="pip-audit's command")
    audits = [audit_python(parser.parse_args().pip_audit), audit_page()]
    for audit in audits:
        print(audit)
    return exit_status(audits)


def exit_status(audits: Sequence[Audit]) -> int:
    if any(audit.vulnerabilities for audit in audits):
        return FOUND
    return UNCHECKED if any(audit.unchecked for audit in audits) else 0


def audit_python(pip_audit: str) -> Audit:
    """Audit the packages of this interpreter with the first of pip-audit's services that knows any of them."""
    reasons = []
    for service in _SERVICES:
        command = [pip_audit, "--path", sysconfig.get_path("purelib"), "--vulnerability-service", service]
        audit = read_pip_audit(*_run([*command, "--format", "json", "--progress-spinner", "off"]))
        if audit.checked:
            return audit
        reasons.append(f"{service}: {audit.unchecked}")
    return Audit("pip-audit", unchecked="; ".join(reasons))


def audit_page() -> Audit:
    """Audit the packages of frontend/package-lock.json."""
    try:
        return read_npm_audit(*_run([*find("npm"), "audit", "--json"]))
    except PageError as error:
        return Audit("npm audit", unchecked=str(error))


def read_pip_audit(output: str, errors: str) -> Audit:
    """What pip-audit printed. A package that its service does not know is no clean one: pip-audit itself ends with
    status 0 if the index has no vulnerability service, as mirrors do."""
    audit = Audit("pip-audit")
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        audit.unchecked = f"the service was not reached: {_last_line(errors)}"
        return audit
    skipped = [each for each in packages if "skip_reason" in each and each["name"] not in _NOT_ON_PYPI]
    for package in packages:
        audit.checked += "vulns" in package
        for each in package.get("vulns", ()):
            fixed = ", ".join(each.get("fix_versions", ())) or "no release"
            audit.vulnerabilities.append(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
    if skipped:
        audit.unchecked = f"{len(skipped)} packages, such as {skipped[0]['name']}: {skipped[0]['skip_reason']}"
    return audit


def read_npm_audit(output: str, errors: str) -> Audit:
    """What `npm audit --json` printed."""
    audit, report = Audit("npm audit"), {}
    try:
        report = json.loads(output)
        audit.checked = int(report["metadata"]["dependencies"]["total"])
    except (ValueError, KeyError, TypeError):
        message = report.get("message") if isinstance(report, dict) else ""
        audit.unchecked = f"the service was not reached: {message or _last_line(errors)}"
        return audit
    for name, each in report.get("vulnerabilities", {}).items():
        audit.vulnerabilities.append(f"{name} {each.get('range', '')}: {each.get('severity', 'unknown severity')}")
    return audit


def _run(command: Sequence[str]) -> tuple[str, str]:
    """What a command prints to stdout and stderr. Its status says nothing that the output does not."""
    try:
        done = subprocess.run(
            command,
            cwd=FRONTEND,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{Path(command[0]).name} cannot be run: {error}"
    return done.stdout, done.stderr


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it said nothing"


if __name__ == "__main__":
    sys.exit(main())
