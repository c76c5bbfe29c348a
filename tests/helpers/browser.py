"""A real browser, headless: Chromium, driven by its own protocol over a pair of pipes.

https://chromedevtools.github.io/devtools-protocol/ - no package is needed for it. Accessibility is
checked by Deque's axe, of which the package axe-core-python holds the script.
"""
import base64
import fcntl
import importlib.metadata
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_KEY_CODES = dict(Tab=9, Enter=13, End=35, Home=36, ArrowLeft=37, ArrowUp=38, ArrowRight=39,
                  ArrowDown=40)


def needs_browser(test: Callable) -> Callable:
    """Marks a test `browser`; it is skipped where there is no Chromium."""
    found = any(map(shutil.which, NAMES))
    return pytest.mark.browser(pytest.mark.skipif(
        not found, reason='no Chromium here: `make test-browser` installs it')(test))


class Browser:
    """One page of a fresh Chromium; a context manager.

    Attributes:
        messages: What the page wrote to the console as an error, and its uncaught exceptions.
        requests: The addresses that were asked for.
    """

    def __init__(self, width: int = 1280, height: int = 900):
        self.messages, self.requests = [], []
        self._profile = tempfile.mkdtemp()
        self._last, self._rest, self._session = 0, b'', None
        there, self._out = os.pipe()
        self._in, back = os.pipe()

        def place() -> None:
            # Chromium reads commands from descriptor 3 and answers on 4.
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 5) for end in (there, back)]
            for end, number in zip(ends, (3, 4)):
                os.dup2(end, number)

        program = next(filter(None, map(shutil.which, NAMES)))
        self._process = subprocess.Popen(
            [program, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
             '--no-first-run', '--disable-background-networking', '--disable-component-update',
             '--disable-sync', '--remote-debugging-pipe', f'--user-data-dir={self._profile}',
             f'--window-size={width},{height}', 'about:blank'],
            pass_fds=(3, 4), preexec_fn=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(there)
        os.close(back)
        self.call('Browser.setDownloadBehavior', behavior='allow', downloadPath=self._profile)
        page = next(target for target in self.call('Target.getTargets')['targetInfos']
                    if target['type'] == 'page')
        self._session = self.call('Target.attachToTarget', targetId=page['targetId'],
                                  flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log', 'DOM'):
            self.call(f'{domain}.enable')
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setFocusEmulationEnabled', enabled=True)  # or no event of focus comes

    def __enter__(self) -> 'Browser':
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, address: str | Path) -> None:
        """Goes to an address or a file, and waits until it is loaded."""
        if isinstance(address, Path):
            address = address.resolve().as_uri()
        self.call('Page.navigate', url=address)
        self.wait('document.readyState === "complete" && location.href !== "about:blank"')

    def run(self, script: str) -> object:
        """The value of a JavaScript expression, awaited."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True,
                           awaitPromise=True)
        assert 'exceptionDetails' not in answer, f'{script}: {answer["exceptionDetails"]}'
        return answer['result'].get('value')

    def wait(self, condition: str, seconds: float = 60) -> object:
        """Waits until an expression is true; returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < end, f'has not come: {condition}\n{self.messages}'
            time.sleep(0.1)
        return value

    def media(self, **features: str) -> None:
        """Sets what the user prefers, as prefers_color_scheme='dark'."""
        self.call('Emulation.setEmulatedMedia', features=[
            dict(name=name.replace('_', '-'), value=value) for name, value in features.items()])

    def mouse(self, x: float, y: float) -> None:
        """Moves the pointer."""
        self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def press(self, key: str) -> None:
        """Presses a key on what has the focus, such as 'ArrowRight' or 'Tab'."""
        for kind in ('rawKeyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=key, code=key,
                      windowsVirtualKeyCode=_KEY_CODES[key])

    def upload(self, selector: str, path: Path) -> None:
        """Chooses a file in an input."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        assert node, f'no {selector}'
        self.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node)

    def downloaded(self, pattern: str, seconds: float = 30) -> Path:
        """Waits for a file that the page has the browser save."""
        end = time.monotonic() + seconds
        while not (found := list(Path(self._profile).glob(pattern))):
            assert time.monotonic() < end, f'{pattern} was not downloaded\n{self.messages}'
            time.sleep(0.1)
        return found[0]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Writes a PNG of what is visible, or of the whole page."""
        data = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(data['data']))

    def axe(self, **options: object) -> list[str]:
        """Checks the accessibility of what the page shows now, in a line for each violation.

        A line names the rule, what it asks for and the elements, so that a failed test says it all.

        Args:
            **options: Options of `axe.run`, such as rules={'region': {'enabled': False}}.
        """
        if not self.run('"axe" in window'):
            script = next(file for file in importlib.metadata.files('axe-core-python')
                          if file.name == 'axe.min.js')
            self.call('Runtime.evaluate', expression=script.read_text(encoding='utf-8'))
        found = self.run(f'axe.run(document, {json.dumps(options)}).then(r => r.violations)')
        return [f'{rule["id"]} ({rule["impact"]}): {rule["help"]}: ' + '; '.join(
            f'{node["target"][0]} {node["failureSummary"]}' for node in rule['nodes'])
            for rule in found]

    def call(self, method: str, **parameters: object) -> dict:
        """One command of the protocol."""
        self._last += 1
        message = dict(id=self._last, method=method, params=parameters)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._last:
                assert 'error' not in answer, f'{method}: {answer["error"]}'
                return answer['result']

    def _read(self, seconds: float = 60) -> dict:
        """The next answer or event; events are noted on the way."""
        while b'\0' not in self._rest:
            ready, _, _ = select.select([self._in], [], [], seconds)
            data = os.read(self._in, 1 << 20) if ready else b''
            assert data, 'the browser does not answer'
            self._rest += data
        text, _, self._rest = self._rest.partition(b'\0')
        message = json.loads(text)
        event, parameters = message.get('method'), message.get('params', {})
        if event == 'Network.requestWillBeSent':
            self.requests.append(parameters['request']['url'])
        elif event == 'Runtime.exceptionThrown':
            details = parameters['exceptionDetails']
            self.messages.append(details.get('exception', {}).get('description', details['text']))
        elif event == 'Log.entryAdded' and parameters['entry']['level'] == 'error':
            self.messages.append(parameters['entry']['text'])
        return message
