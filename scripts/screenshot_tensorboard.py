"""Makes docs/tensorboard.png: the first dashboard to look at while a model learns the demo's pictures.

Everything in it is real: known boxes play the annotator, the model is trained and evaluated after each round, and
TensorBoard shows what it finds in the model directory. Needs Debian's chromium and the Python package playwright. Takes
some three minutes. Example:
    python scripts/screenshot_tensorboard.py docs/tensorboard.png --all docs/tensorboard
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from bench_web import CHROMIUM, CHROMIUM_FLAGS
from demo import make_project, write_evaluation_record
from odkeras.config import SimulationSettings
from odkeras.simulation.simulate import simulate
from odkeras.web.tensorboard import FIRST_DASHBOARD, TensorBoard

WHOLE = {FIRST_DASHBOARD: 3.3, "images": 1.5, "pr_curves": 1.5, "text": 1.6}
"""Dashboards with their height in screens."""


def main() -> None:
    args = parse_arguments()
    args.out, args.all = args.out.absolute(), args.all and args.all.absolute()
    with project(args) as folder:
        os.chdir(folder)  # TensorBoard displays the path as given, so it must be short and relative
        with closing(TensorBoard(Path("model"), folder / "tensorboard.log")) as board:
            take_pictures(board.url(), args)
    print(f"{args.out}: {args.out.stat().st_size // 1024} KiB")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/tensorboard.png"))
    parser.add_argument("--all", type=Path, metavar="DIR", help="pictures of whole dashboards go there")
    parser.add_argument("--project", type=Path, help="keep the project there; show it as it is if it is there")
    parser.add_argument("--annotations", type=int, default=60, help="pictures to annotate (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=6, help="pictures per round (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=80, help="training steps per round (default: %(default)s)")
    parser.add_argument("--width", type=int, default=1500)
    parser.add_argument("--height", type=int, default=820)
    return parser.parse_args()


@contextmanager
def project(args: argparse.Namespace) -> Iterator[Path]:
    if args.project is not None:
        if not (args.project / "model" / "metrics.jsonl").exists():
            learn(args.project, args)
        yield args.project
        return
    with tempfile.TemporaryDirectory(prefix="odkeras-screenshot-") as name:
        learn(Path(name), args)
        yield Path(name)


def learn(folder: Path, args: argparse.Namespace) -> None:
    dataset = make_project(folder)
    write_evaluation_record(folder, dataset)
    settings = SimulationSettings(
        config=folder / "pipeline.config",
        annotations=args.annotations,
        images_per_round=args.batch_size,
        steps_per_epoch=args.steps,
        run_eval=True,
    )
    simulate(dataset.train_csv, settings, dataset.images_dir, test_csv=dataset.test_csv)


def take_pictures(url: str, args: argparse.Namespace) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": args.width, "height": args.height})
        open_dashboard(page, url, FIRST_DASHBOARD)
        save(page, args.out)
        if args.all is not None:
            for name, screens in WHOLE.items():
                page.set_viewport_size({"width": args.width, "height": round(screens * args.height)})
                open_dashboard(page, url, name)
                save(page, args.all / f"{name}.png")
        browser.close()


def open_dashboard(page: Page, url: str, name: str) -> None:
    page.goto("about:blank")
    page.goto(f"{url.split('#')[0]}#{name}")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(6000)  # the charts are drawn one after another


def save(page: Page, out: Path) -> None:
    """Save a screenshot with a palette of 256 colours, which makes the file smaller."""
    out.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(out))
    with Image.open(out) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
