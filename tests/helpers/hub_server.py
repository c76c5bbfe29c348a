"""A stand-in for the Hugging Face hub on the loopback: repositories in memory, by few endpoints.

It has what ``create_repo``, ``upload_folder`` and ``snapshot_download`` of huggingface_hub ask for.
"""
import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

COMMIT = 'c' * 40
_REPOSITORY = '(?P<repository>[^/]+/[^/]+)'


class Hub(ThreadingHTTPServer):
    """The stand-in.

    Attributes:
        files: Name of a repository -> path of a file -> its content.
        private: Names of the private repositories.
        blobs: SHA-256 of a large file -> its content.
        denies: Whether every request is refused, as without a login.
        asked: Requests that came, 'POST /api/repos/create' and so on.
    """

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.denies = False
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        """Address of the stand-in, for HF_ENDPOINT."""
        return f'http://127.0.0.1:{self.server_port}'


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Runs a stand-in in a thread of this process."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_: object) -> None:
        """Prints nothing."""

    def _answer_request(self) -> None:
        path = urlparse(self.path).path
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.server.asked.append(f'{self.command} {path}')
        if self.server.denies:
            self._answer(401, {'error': 'Invalid credentials'})
            return
        for command, pattern, work in _ENDPOINTS:
            found = re.fullmatch(pattern, path)
            if self.command in command and found:
                work(self, body, **found.groupdict())
                return
        self._answer(404, {'error': f'no such place: {path}'})

    do_GET = do_HEAD = do_POST = do_PUT = _answer_request  # noqa: N815 - as the library has them

    def _answer(self, code: int, content: object = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(code)
        for name, value in {'Content-Type': 'application/json', **headers}.items():
            self.send_header(name.replace('_', '-'), value)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(data)

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f'{asked.get("organization") or "me"}/{asked["name"]}'
        known = name in self.server.files
        self.server.files.setdefault(name, {})
        if not known and (asked.get('private') or asked.get('visibility') == 'private'):
            self.server.private.add(name)
        self._answer(409 if known else 200, {'url': f'{self.server.address}/{name}'})

    def _preupload(self, body: bytes, repository: str) -> None:
        self._answer(200, {'files': [
            {'path': each['path'], 'shouldIgnore': False, 'oid': None,
             'uploadMode': 'lfs' if each['path'].endswith('.safetensors') else 'regular'}
            for each in json.loads(body)['files']]})

    def _batch(self, body: bytes, repository: str) -> None:
        asked = json.loads(body)
        self._answer(200, {'transfer': 'basic', 'objects': [
            {**each, 'actions': {'upload': {'href': f'{self.server.address}/blob/{each["oid"]}'}}}
            for each in asked['objects']]})

    def _store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._answer(200)

    def _commit(self, body: bytes, repository: str) -> None:
        files = self.server.files[repository]
        for line in map(json.loads, body.splitlines()):
            value = line['value']
            if line['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif line['key'] == 'lfsFile':
                files[value['path']] = self.server.blobs[value['oid']]
        self._answer(200, {'success': True, 'commitOid': COMMIT, 'hookOutput': '',
                           'commitUrl': f'{self.server.address}/{repository}/commit/{COMMIT}'})

    def _info(self, body: bytes, repository: str) -> None:
        if repository not in self.server.files:
            self._answer(404, {'error': 'Repository not found'}, X_Error_Code='RepoNotFound')
            return
        self._answer(200, {'id': repository, 'modelId': repository, 'sha': COMMIT, 'private': False,
                           'siblings': [{'rfilename': name}
                                        for name in self.server.files[repository]]})

    def _tree(self, body: bytes, repository: str) -> None:
        self._answer(200, [{'type': 'file', 'path': name, 'size': len(data), 'oid': _oid(data)}
                           for name, data in self.server.files[repository].items()])

    def _resolve(self, body: bytes, repository: str, name: str) -> None:
        data = self.server.files.get(repository, {}).get(name)
        if data is None:
            self._answer(404, {'error': 'Entry not found'}, X_Error_Code='EntryNotFound')
            return
        self._answer(200, data, X_Repo_Commit=COMMIT, ETag=f'"{_oid(data)}"',
                     Accept_Ranges='bytes')

    def _yaml(self, body: bytes) -> None:
        self._answer(200, {'errors': [], 'warnings': []})


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324 - as git names contents


_ENDPOINTS = [
    ('POST', '/api/repos/create', _Handler._create),
    ('POST', '/api/validate-yaml', _Handler._yaml),
    ('POST', f'/api/models/{_REPOSITORY}/preupload/main', _Handler._preupload),
    ('POST', f'/{_REPOSITORY}.git/info/lfs/objects/batch', _Handler._batch),
    ('PUT', '/blob/(?P<oid>[0-9a-f]{64})', _Handler._store),
    ('POST', f'/api/models/{_REPOSITORY}/commit/main', _Handler._commit),
    ('GET', f'/api/models/{_REPOSITORY}(/revision/[^/]+)?', _Handler._info),
    ('GET', f'/api/models/{_REPOSITORY}/tree/[^/]+', _Handler._tree),
    ('GET HEAD', f'/{_REPOSITORY}/resolve/[^/]+/(?P<name>.+)', _Handler._resolve),
]
