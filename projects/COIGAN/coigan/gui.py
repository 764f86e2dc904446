"""The page of the verb `gui`: a picture, a layer to draw on for each class, and what the generator makes of them."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from coigan.data.images import encode_png
from coigan.inference import Inpainter
from gan_plugin.data.masks import understood
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError, as_user_error, explanation
from gan_plugin.files import write_whole

_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
# seconds between two looks for what the page has cached, and the age at which that is deleted
_DAY = (86400, 86400)
_HINT = (
    "Choose a class in the list of layers and draw where a defect of it is wanted; the layer says of which class, "
    "the colour only helps the eye."
)
# without the buttons that change the order of the layers, since a layer's place is its class
_CSS = ".layer-wrap li > div { display: none }"


def read_layers(layers: Sequence[np.ndarray], classes: Sequence[str], height: int, width: int) -> np.ndarray:
    """(n, H, W) bool: where each of the drawn `layers`, (H, W, 4) bytes, is opaque.

    Raises:
        UserError: there is not a layer for each class, or one has another size or is half transparent.
    """
    if len(layers) != len(classes):
        raise UserError(
            f"There are {len(layers)} layers, but the model has {len(classes)} classes: {', '.join(classes)}; reload "
            "the page."
        )
    masks = np.zeros((len(classes), height, width), bool)
    for mask, layer, name in zip(masks, layers, classes, strict=True):
        if layer.shape[:2] != mask.shape:
            size = f"{layer.shape[1]}x{layer.shape[0]}"
            raise UserError(f"The layer {name} has {size} pixels, the picture {width}x{height}; draw on the picture.")
        try:
            mask[...] = understood(Image.fromarray(np.ascontiguousarray(layer[..., 3])))[0]
        except ValueError as error:
            raise UserError(f"How opaque the layer {name} is {error}; draw with an opaque, wider brush.") from error
    return masks


class Studio:
    """Base pictures, the generator, and a folder for what is saved: what the page does, without the page."""

    def __init__(self, inpainter: Inpainter, folder: str | Path, bases: Sequence[Path], out: str | Path) -> None:
        """
        Args:
            inpainter: paints.
            folder: the pictures are named by their paths below it.
            bases: pictures to start from.
            out: folder for saved samples, made when the first is saved.
        """
        self.inpainter, self._out = inpainter, Path(out)
        self.bases = {path.relative_to(folder).as_posix(): path for path in bases}

    def name_of(self, base: Path) -> str:
        """The picture's path below its folder; its own name if it was uploaded."""
        return next((name for name, path in self.bases.items() if path == base), base.name)

    def paint(
        self, base: Path, layers: Sequence[np.ndarray], seed: int, strength: float, margin: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The base picture, the masks and the painted picture; see `Inpainter.paint` for the last three arguments.

        Raises:
            UserError: nothing was drawn, or a value is not usable.
        """
        if not (isinstance(seed, int) and 0 <= seed < 2**63 and isinstance(margin, int) and margin >= -1):
            raise UserError("The seed is a whole number of 0 or more, the margin one of -1 or more.")
        if not 0 <= strength <= 2:
            raise UserError("The strength lies between 0 and 2.")
        image = read_rgb(base)
        masks = read_layers(layers, self.inpainter.classes, *image.shape[:2])
        if not masks.any():
            raise UserError("Nothing is drawn; draw on the picture where a defect is wanted.")
        return image, masks, self.inpainter.paint(image, masks, seed, strength, margin)

    def save(
        self, base: Path, layers: Sequence[np.ndarray], seed: int, strength: float, margin: int
    ) -> tuple[Path, list[str]]:
        """Paint and save picture, masks, result and what made them; returns the folder and the names of the files.

        Raises:
            UserError: as of `paint`; or the files cannot be written.
        """
        image, masks, painted = self.paint(base, layers, seed, strength, margin)
        stem = _free(self._out, _plain(os.path.splitext(self.name_of(base))[0]))
        # with the number of the class, since two names may be the same in plain letters
        names = [f"{stem}_mask_{place}_{_plain(name)}.png" for place, name in enumerate(self.inpainter.classes)]
        files = {f"{stem}_base.png": encode_png(image), f"{stem}_painted.png": encode_png(painted)}
        files |= {name: encode_png(mask.astype(np.uint8) * 255) for name, mask in zip(names, masks, strict=True)}
        facts = self.inpainter.facts(self.name_of(base), seed, strength, margin)
        facts["masks"] = dict(zip(self.inpainter.classes, names, strict=True))
        files[f"{stem}.json"] = json.dumps(facts, indent=1).encode()
        self._out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(self._out / name, content)
        return self._out, sorted(files)


def _plain(name: str) -> str:
    """`name` in letters that any file system takes, in one part."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "picture"


def _free(folder: Path, name: str) -> str:
    number = 1
    while (folder / f"{name}_{number:03d}.json").exists():
        number += 1
    return f"{name}_{number:03d}"


def _gradio() -> Any:
    # read as gradio is imported
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            f"The page needs Gradio ({error}); install it with pip install 'gan_plugin[gui]', in a checkout with "
            "pip install '.[gui]'."
        ) from error
    return gradio


def _explained(gradio: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with a user's mistake shown on the page as its sentence."""

    @wraps(function)
    def told(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            if sentence := explanation(error):
                raise gradio.Error(sentence, print_exception=False) from error
            raise

    return told


def build_page(studio: Studio, folder: Path) -> Any:
    """The page as gradio's Blocks; the endpoints are /open, /upload, /next, /paint, /follow and /save.

    Args:
        studio: does what the page asks for.
        folder: for the pictures that the page shows, named by what they are.

    Raises:
        UserError: gradio is not installed.
    """
    gr = _gradio()
    names, classes = list(studio.bases), studio.inpainter.classes
    margin_of_training = studio.inpainter.trained.cfg.MODEL.GENERATOR.BLEND_MARGIN

    def shown(base: Path) -> tuple[Path, Any, None]:
        editor = {"background": read_rgb(base), "layers": [], "composite": None}
        return base, gr.update(value=editor, label=studio.name_of(base)), None

    def open_next(name: str | None) -> tuple[Any, ...]:
        name = names[(names.index(name) + 1) % len(names)] if name else names[0]
        return name, *shown(studio.bases[name])

    def paint(base: Path, drawn: dict[str, Any], *how: Any) -> str:
        painted = studio.paint(base, drawn["layers"], *how)[2]
        file = folder / f"{_plain(os.path.splitext(studio.name_of(base))[0])}_seed{how[0]}_painted.png"
        file.write_bytes(encode_png(painted))
        return str(file)

    def follow(wanted: bool, base: Path, drawn: dict[str, Any], *how: Any) -> Any:
        if not wanted:
            return gr.skip()
        return paint(base, drawn, *how) if any(layer[..., 3].any() for layer in drawn["layers"]) else None

    def save(base: Path, drawn: dict[str, Any], *how: Any) -> str:
        saved, files = studio.save(base, drawn["layers"], *how)
        return "\n".join([f"Saved in {saved}:", *files])

    with gr.Blocks(title="Paint defects", analytics_enabled=False, fill_width=True, delete_cache=_DAY) as page:
        gr.Markdown(f"# Paint defects\n{_HINT}")
        base = gr.State(studio.bases[names[0]])
        with gr.Row():
            picture = gr.Dropdown(names, value=names[0], label="Picture", scale=4)
            another = gr.Button("Next picture")
            upload = gr.UploadButton("Upload a picture", file_types=["image"])
        with gr.Row():
            editor = gr.ImageEditor(
                label=names[0],
                sources=(),
                transforms=(),
                layers=gr.LayerOptions(allow_additional_layers=False, layers=list(classes)),
                brush=gr.Brush(default_size=max(1, studio.inpainter.tile // 16), colors=_COLOURS, color_mode="fixed"),
                format="png",
                buttons=["fullscreen"],
            )
            result = gr.Image(label="Painted", format="png", interactive=False, buttons=["download", "fullscreen"])
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            strength = gr.Slider(0, 2, 1, step=0.05, label="Strength")
            margin = gr.Number(margin_of_training, label="Margin in pixels, or -1", precision=0, minimum=-1)
            live = gr.Checkbox(True, label="Paint after each stroke")
        with gr.Row():
            run, reseed, keep = gr.Button("Paint", variant="primary"), gr.Button("Another seed"), gr.Button("Save")
        said = gr.Textbox(label="Saved", interactive=False)

        def on(events: Any, name: str, function: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> Any:
            # one at a time, and of many strokes the last
            return gr.on(
                events,
                _explained(gr, function),
                inputs,
                outputs,
                api_name=name,
                concurrency_id="paint",
                trigger_mode="always_last",
            )

        view, how = [base, editor, result], [seed, strength, margin]
        on([page.load, picture.input], "open", lambda name: shown(studio.bases[name]), [picture], view)
        on([another.click], "next", open_next, [picture], [picture, *view])
        on([upload.upload], "upload", lambda file: (None, *shown(Path(file))), [upload], [picture, *view])
        on([run.click], "paint", paint, [base, editor, *how], [result])
        on(
            [editor.input, strength.release, seed.submit, margin.submit],
            "follow",
            follow,
            [live, base, editor, *how],
            [result],
        )
        more = reseed.click(lambda seed: seed + 1, [seed], [seed], api_name=False)
        more.then(_explained(gr, paint), [base, editor, *how], [result], api_name=False, concurrency_id="paint")
        on([keep.click], "save", save, [base, editor, *how], [said])
    return page


@contextmanager
def served(studio: Studio, port: int) -> Iterator[str]:
    """The page's address on this machine, for as long as the block lasts.

    Args:
        studio: see `build_page`.
        port: 0 for one that is free.

    Raises:
        UserError: gradio is not installed, or the port is taken.
    """
    with TemporaryDirectory() as folder:
        page = build_page(studio, Path(folder))
        themes = _gradio().themes
        with as_user_error(f"Port {port} cannot be opened", "choose another with --port", OSError, OverflowError):
            _, address, _ = page.launch(
                server_name="127.0.0.1",
                server_port=port or None,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,
                ssr_mode=False,
                css=_CSS,
                # gradio's own theme asks a server of Google's for its fonts
                theme=themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            )
        try:
            yield address
        finally:
            page.close(verbose=False)
