"""Makes the pictures of `pictures.md` from the screenshots that the browser tests left: `make pictures`."""

import re
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
SHOTS = HERE.parent / "tests" / "browser" / "screenshots"
WIDTH = 1200  # of a picture: text can be read, and a page of them stays small


def main() -> None:
    """Each picture that the page names, from the screenshot of its name; what it does not name goes."""
    named = set(re.findall(r"\(pictures/([\w-]+)\.png\)", (HERE / "pictures.md").read_text()))
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem not in named:
            old.unlink()
    for name in sorted(named):
        shot = Image.open(SHOTS / f"{name}.png").convert("RGB")
        picture = shot.resize((WIDTH, round(shot.height * WIDTH / shot.width)), Image.Resampling.LANCZOS)
        # keeps rare colours, and the three rounds of k-means make greys grey
        few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        few.save(folder / f"{name}.png", optimize=True)
        size = (folder / f"{name}.png").stat().st_size
        sys.stdout.write(f"{name}: {size / 1e3:.0f} kB\n")


if __name__ == "__main__":
    main()
