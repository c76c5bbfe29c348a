"""The page, built with Gradio.

Letters: `H W` pixels, `K` classes. Nothing is fetched from elsewhere and nothing is reported: no
analytics, no fonts of other servers, no public link.
"""
import os
import os.path as osp
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib import resources

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported

import gradio as gr  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image, UnidentifiedImageError  # noqa: E402

from ...errors import InputError  # noqa: E402
from ...units import MIB  # noqa: E402
from ..files import read_image, save_labels  # noqa: E402
from .view import view  # noqa: E402

_FONTS = ['system-ui', 'sans-serif']
_QUEUE = 16  # images that may wait
_ADDRESS = """for (const place of element.querySelectorAll('.address'))
  place.textContent = location.origin + location.pathname.replace(/\\/$/, '');"""
_KEPT_SECONDS = 3600  # uploads and label maps are deleted after that


def build(predict: Callable[[np.ndarray], np.ndarray], classes: Sequence[str],
          palette: np.ndarray, *, title: str, note: str = '', first_label: int = 0,
          megapixels: float = 25, examples: Sequence[str] = ()) -> gr.Blocks:
    """Builds the page.

    Args:
        predict: Function from RGB uint8 (H, W, 3) to classes (H, W).
        classes: Names of the K classes.
        palette: Colours, RGB (K, 3), 0..255.
        title: Title of the page.
        note: Markdown below the title.
        first_label: Value of the first class in the label map to download.
        megapixels: Largest image; larger ones are refused before they are decoded.
        examples: Paths of images to click.
    """
    def show(path: str | None) -> tuple[str, dict]:
        if path is None:
            return '', gr.update(value=None, interactive=False)
        image, labels = _labels_of(path, predict, megapixels)
        out = _write_labels(path, labels, palette, first_label)
        return (view(image, labels, classes, palette),
                gr.update(value=out, interactive=True))

    def answer(path: str | None) -> tuple[str, dict[str, float]]:
        if path is None:
            raise gr.Error('expected an image', print_exception=False)
        _, labels = _labels_of(path, predict, megapixels)
        numbers, pixels = np.unique(labels, return_counts=True)
        out = _write_labels(path, labels, palette, first_label)
        return out, {classes[k]: float(count / labels.size) for k, count in zip(numbers, pixels)}

    files = {name: _read(f'viewer.{name}') for name in ('html', 'css', 'js')}
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True,
                   delete_cache=(_KEPT_SECONDS, _KEPT_SECONDS)) as app:
        gr.Markdown(f'# {title}\n{note}')
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                upload = gr.Image(label='Image', height=320, type='filepath',
                                  sources=['upload', 'clipboard'])
                # The file as it came: Gradio would decode it before anything could be checked.
                upload.preprocess = lambda payload: payload and payload.path
                download = gr.DownloadButton('Label map (PNG)', interactive=False)
                if examples:
                    _add_examples(examples, upload)
            with gr.Column(scale=3, min_width=300):
                viewer = gr.HTML(
                    '', html_template=files['html'], css_template=files['css'],
                    js_on_load=files['js'], elem_id='viewer',
                    known=[dict(name=name, colour=[int(part) for part in colour])
                           for name, colour in zip(classes, palette)])
        gr.HTML('', html_template=_read('api.html'), js_on_load=_ADDRESS, elem_id='api')
        upload.change(show, upload, [viewer, download], api_visibility='private',
                      show_progress_on=viewer)
        gr.Button(visible=False).click(
            answer, upload, [gr.File(visible=False), gr.JSON(visible=False)], api_name='label',
            api_description='Labels an image: a PNG file of its labels, and the share of each '
            'class')
    return app.queue(max_size=_QUEUE, default_concurrency_limit=1)


def _labels_of(path: str, predict: Callable[[np.ndarray], np.ndarray], megapixels: float
              ) -> tuple[np.ndarray, np.ndarray]:
    """Returns an upload, RGB uint8 (H, W, 3), and its labels (H, W).

    Raises:
        gr.Error: If it is no image, or too large.
    """
    try:
        check_pixels(path, megapixels)
        image = read_image(path)
        return image, predict(image)
    except InputError as error:
        message = str(error).replace(path, osp.basename(path))
        raise gr.Error(message, print_exception=False) from error


def _write_labels(path: str, labels: np.ndarray, palette: np.ndarray, first_label: int) -> str:
    """Writes the label map of an upload to a folder of its own, and returns its path."""
    out = osp.join(tempfile.mkdtemp(), osp.splitext(osp.basename(path))[0] + '_labels.png')
    save_labels(labels, palette, out, first_label)
    return out


def _add_examples(paths: Sequence[str], upload: gr.Image) -> None:
    """Adds buttons with small pictures, each of which uploads its image."""
    with gr.Row(elem_id='examples'):
        for number, path in enumerate(paths, 1):
            gr.Button(f'Example {number}', icon=_thumbnail(path), size='sm', min_width=90).click(
                lambda path=path: path, None, upload, api_visibility='private',
                show_progress='hidden')


def _thumbnail(path: str) -> str:
    with Image.open(path) as image:
        small = image.convert('RGB')
        small.thumbnail((160, 160))
    out = osp.join(tempfile.mkdtemp(), 'example.png')
    small.save(out)
    return out


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text('utf-8')


def launch(app: gr.Blocks, host: str, port: int | None, megabytes: float) -> str:
    """Starts the server in the background and returns its address.

    Raises:
        InputError: If the port is taken, or the host is no address of this machine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            _, address, _ = app.launch(
                server_name=host, server_port=port, share=False, quiet=True,
                prevent_thread_lock=True, max_file_size=int(megabytes * MIB), footer_links=[],
                theme=gr.themes.Default(font=_FONTS, font_mono=['monospace']), show_error=True,
                ssr_mode=False, css=_read('page.css'))
        except OSError as error:
            raise InputError(f'--host {host} --port {port or "7860..7959"}: in use, or no address '
                             'of this machine; choose another') from error
    return address


def check_pixels(path: str, megapixels: float) -> None:
    """Checks the size of an upload by its header alone.

    Raises:
        InputError: If it is no image, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise InputError(f'{path} is no image that can be read, or far too large: expected a '
                         'JPEG, PNG or WebP file') from error
    if width * height > megapixels * 1e6:
        raise InputError(f'{path} has {width}x{height} pixels: at most {megapixels:g} megapixels '
                         'are taken; scale it down')
