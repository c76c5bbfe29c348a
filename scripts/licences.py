"""Writes docs/licences.md: the licence of every package that requirements/*.lock name.

    python scripts/licences.py

tests/test_supply_chain.py fails where the page and the locks differ.
"""
from packages import PAGE, all_packages, licences

HEAD = """\
# Licences of all dependencies

What `make setup` installs, with the dependencies of dependencies, by the metadata of the packages
(Python 3.11 on Linux; what only other versions or systems need was looked up). `make licences`
writes this page, and a test holds that it fits the locks. The page of
[dependencies](dependencies.md) says what each package is for that this project itself asks for.
This project is under Apache-2.0 and contains none of these packages; an image of
[containers](containers.md) does.

"At run time" is what training, testing and export need, "development" what tests, style and docs
add.

| package | licence | for | needed by |
|---|---|---|---|
"""


def page() -> str:
    """Returns the text of the page.

    Raises:
        ValueError: If a package is not installed here, and its licence not known.
    """
    known = licences()
    rows: dict[str, tuple[str, set[str]]] = {}
    for package in all_packages():
        use = 'development' if package.lock == 'dev' else 'at run time'
        _, needed_by = rows.setdefault(package.name, (use, set()))
        needed_by.update('this project' if name.startswith('-r ') else name
                         for name in package.needed_by)
    missing = sorted(rows.keys() - known.keys())
    if missing:
        raise ValueError(f'licences of {", ".join(missing)}: not installed here; run this with the '
                         'Python of .venv, or look them up and add them to READ of '
                         'scripts/packages.py')
    return HEAD + ''.join(f'| {name} | {known[name]} | {use} | {", ".join(sorted(needed_by))} |\n'
                          for name, (use, needed_by) in sorted(rows.items()))


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
