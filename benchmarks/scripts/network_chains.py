"""Public networks through the whole chain: trained, quantized to 4x8, written, computed by every back end.

    python benchmarks/scripts/network_chains.py nets.py more_nets.py --json network_chains.json
    python benchmarks/scripts/network_chains.py nets.py --only resnet18 --json network_chains.json

Each network of NETWORKS that a file has is trained for an epoch on 160 small images of digits in colours,
quantized for an epoch and exported as .onnx and .coc, by the commands as a user types them. A run that was
stopped goes on with the networks that the file of results lacks; `--only` runs some anew. Exit code 1 if a
command fails or a back end differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from coc_deploy.models.user import load
from coc_runtime import files
from coc_runtime.environment import environment

CLASSES = 4
SIZE = 64
SIZES = {"alexnet": 224, "inception_v3": 96}
NETWORKS = (
    *("alexnet", "resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small"),
    *("efficientnet_b0", "shufflenet_v2_x0_5", "squeezenet1_1", "densenet121", "googlenet", "inception_v3"),
    *("mnasnet0_5", "regnet_y_400mf"),
    *("resnet18d", "ghostnet_050", "tf_efficientnet_lite0", "repvgg_a0", "mobileone_s0", "lcnet_050"),
    *("mobilenetv4_conv_small_050", "fbnetc_100", "hardcorenas_a", "selecsls42", "dla34", "hgnetv2_b0"),
    *("res2net50_14w_8s", "cspresnet50", "resnetv2_18", "starnet_s050", "mixnet_s", "rexnet_100"),
)
RECIPE = """chain = "Q"
data = "imagefolder:{data}"
batch = 16
[original]
model = "{model}"
epochs = 1
lr = 0.02
[q]
bits = "4x8"
epochs = 1
"""


def draw_digits(folder: Path, size: int) -> None:
    """Images of the digits 0 to 3, one colour each: 40 of a class to train on, 12 to test."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        found = digits.images[digits.target == label][:52]
        for index, image in enumerate(found):
            split = "train" if index < 40 else "test"
            place = folder / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            pixels = image[..., None] / 16 * rng.integers(80, 256, 3) + rng.integers(0, 40)
            drawn = Image.fromarray(np.minimum(pixels, 255).astype(np.uint8))
            drawn.resize((size, size), Image.Resampling.BICUBIC).save(place / f"{index}.png")


def try_one(path: Path, name: str, images: int) -> dict[str, Any]:
    """The row of a network; `failed` is the last line of a command that did not succeed, or ""."""
    size = SIZES.get(name, SIZE)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_digits(folder / "data", size)
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE.format(data=folder / "data", model=f"{path.resolve()}:{name}"))
        row: dict[str, Any] = {"name": name, "file": path.name, "size": size, "failed": ""}
        outs = [folder / "net.onnx", folder / "net.coc"]
        commands = {
            "compress": ["coc_deploy", str(recipe), "--out", str(folder / "run")],
            "export": ["coc_export", str(folder / "run/model.pt"), "--images", str(images)]
            + [word for out in outs for word in ("--out", str(out))],
        }
        for word, command in commands.items():
            started = time.perf_counter()
            words = [sys.executable, "-m", *command]
            ended = subprocess.run(words, capture_output=True, text=True, check=False)
            row[f"{word}_seconds"] = round(time.perf_counter() - started, 1)
            if ended.returncode:
                last = ended.stderr.strip().splitlines()[-1:]
                return row | {"failed": f"{word}, exit code {ended.returncode}: {''.join(last)}"}
        return row | _compared(outs)


def _compared(outs: list[Path]) -> dict[str, Any]:
    """Sizes, and what the reports say of differences among back ends."""
    row: dict[str, Any] = {"pairs": 0, "images": 0, "differing_logits": 0, "flipped_exits": 0}
    for out in outs:
        suffix = ".coc.report.json" if out.suffix == ".coc" else ".report.json"
        report = json.loads(out.with_name(out.stem + suffix).read_text())
        row[f"{out.suffix[1:]}_bytes"] = out.stat().st_size
        parity = report["parity"]
        for found in [parity, *parity.get("also", [])]:
            row["images"] += found["images"]
            for pair in found["pairs"]:
                row["pairs"] += 1
                row["differing_logits"] += pair["differing_logits"]
                row["flipped_exits"] += pair["flipped_exits"]
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.py")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--images", type=int, default=12, help="images of each kind that are compared")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    options = parser.parse_args()
    rows: dict[str, Any] = {}
    if options.json.is_file():
        rows = {row["name"]: row for row in json.loads(options.json.read_text())["networks"]}
    faults = 0
    wanted = options.only or NETWORKS
    for path in options.files:
        for name in [n for n in load(path).NAMES if n in wanted]:
            if name in rows and not options.only:
                continue
            rows[name] = row = try_one(path, name, options.images)
            faults += bool(row["failed"] or row["differing_logits"] or row["flipped_exits"])
            print(json.dumps(row), flush=True)
            files.write_json(options.json, {"environment": environment(), "networks": list(rows.values())})
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
