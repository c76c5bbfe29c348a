"""Says what pip-audit found: python scripts/audit_report.py build/audit.json.

pip-audit counts a package that the service knows nothing of as skipped, and ends well: so does one
that asks a mirror without advisories. Here that is an error: what was not audited is not clean.
"""
import json
import sys
from pathlib import Path


def report(packages: list[dict]) -> tuple[int, str]:
    """Returns an exit code and its reason.

    Args:
        packages: What pip-audit's JSON lists as `dependencies`: `name`, and either `skip_reason`,
            or `version` and `vulns`, each with `id`, `fix_versions` and `description`.

    Returns:
        0 if all were audited and nothing is known of them, 1 with the advisories, 2 if some were
        not audited.
    """
    skipped = [package['name'] for package in packages if 'skip_reason' in package]
    found = [(package, advisory) for package in packages for advisory in package.get('vulns', ())]
    lines = []
    for package, advisory in found:
        fixed = ', '.join(advisory['fix_versions']) or 'no version'
        about = ' '.join(advisory['description'].split())[:300]
        lines.append(f'{package["name"]} {package["version"]}: {advisory["id"]}, '
                     f'fixed in {fixed}: {about}')
    if found:
        lines.append(f'audit: {len(found)} advisories: update with `make lock OPTIONS='
                     '"--upgrade-package NAME"`, or explain why not in docs/dependencies.md and '
                     'give OPTIONS="--ignore-vuln ID"')
    if skipped:
        lines.append(f'audit: {len(skipped)} of {len(packages)} packages were not audited, the '
                     f'service does not know them ({skipped[0]} ...): is it a mirror without '
                     'advisories? Run this where the Python Package Index itself answers')
    if not lines:
        lines.append(f'audit: nothing is known against {len(packages)} packages')
    return (1 if found else 2 if skipped else 0), '\n'.join(lines)


if __name__ == '__main__':
    code, text = report(json.loads(Path(sys.argv[1]).read_text())['dependencies'])
    print(text)
    sys.exit(code)
