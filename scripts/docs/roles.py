"""Turns the roles of docstrings, as :func:`.attention.select_kernel`, into links of the site."""
import logging
import re

from griffe import Extension, GriffeLoader, Module, Object

log = logging.getLogger('mkdocs.hooks.docs')
PACKAGE = 'mmseg_custom'
ROLE = re.compile(r':(?:class|data|func|meth|mod|attr):`(?P<name>[\w.]+)`')


class Roles(Extension):
    """Replaces roles after the whole package was read; a role that names nothing is a warning."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs) -> None:
        """Goes through all docstrings of the package."""
        if pkg.path == PACKAGE:
            walk(pkg, pkg)


def walk(package: Module, item: Object) -> None:
    """Replaces the roles in the docstring of an item, and in those of its members."""
    if item.docstring:
        item.docstring.value = ROLE.sub(lambda match: link(package, item, match['name']),
                                        item.docstring.value)
    for member in item.members.values():
        if not member.is_alias:
            walk(package, member)


def link(package: Module, item: Object, name: str) -> str:
    """Returns the Markdown of a name; one that is private or of another package is code alone."""
    shown = name.lstrip('.')
    found = resolve(package, item, name)
    if found is None:
        if name.partition('.')[0] in ('', PACKAGE) or '.' not in name:
            log.warning(f'{item.path}: the docstring refers to {name}, which is not there')
        return f'`{shown}`'
    if any(part.startswith('_') for part in found.split('.')) or found.endswith('__init__'):
        return f'`{shown}`'
    return f'<autoref identifier="{found}" optional><code>{shown}</code></autoref>'


def resolve(package: Module, item: Object, name: str) -> str | None:
    """Returns the full path of a name, or None.

    A name with dots in front is relative, as in an import: one dot is the folder of the module.
    One that begins with the package's is absolute. Others are looked for in the class and in the
    module, with what it imports.
    """
    inner = item if item.is_class or item.is_module else item.parent
    module = item.module
    if name.startswith('.'):
        folder = module if module.is_init_module else module.parent
        for _ in range(len(name) - len(name.lstrip('.')) - 1):
            folder = folder and folder.parent
        scopes, name = [folder], name.lstrip('.')
    elif name.startswith(f'{PACKAGE}.'):
        scopes, name = [package], name.removeprefix(f'{PACKAGE}.')
    else:
        scopes = [inner, module]
    for scope in scopes:
        try:
            return scope[name].canonical_path
        except (KeyError, TypeError):
            continue
    return None
