"""What quantization without training costs: public CIFAR-10 networks at 8x8 and 4x8, each part alone.

    python benchmarks/scripts/post_training.py --data imagefolder:PATH --weights PATH --json OUT.json

Steps and biases come from 256 test images; accuracy is that of all others, in integers.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coc_deploy import post_training
from coc_deploy.calibration import calibrate
from coc_deploy.models import Architecture
from coc_deploy.models.weights import load_weights
from coc_deploy.network import Network, exit_logits, to_input
from coc_deploy.quantizers import QuantSpec
from coc_runtime import datasets, environment, files

NETWORKS = {
    "resnet20": ("resnet20_optB_distiller_dense_cifar10.pt", 0.5, 0.5),
    "resnet8_mlperf": ("resnet8_mlperftiny_cifar10.pt", 0.0, 1 / 255),
}
"""Name -> file of weights, mean and standard deviation of the pixels that it was trained on."""
BITS = ((8, 8), (4, 8))
CHOSEN_ON = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="imagefolder:data/cifar10")
    parser.add_argument("--weights", type=Path, default=Path("data/weights"))
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = datasets.load(options.data, "test")
    order = np.random.default_rng(0).permutation(len(data.labels))
    chosen, rest = order[:CHOSEN_ON], np.sort(order[CHOSEN_ON:])
    images, labels = data.images[rest], np.asarray(data.labels)[rest]
    batches = [to_input(data.images[chosen])]

    def accuracy(network: Network) -> float:
        return 100 * float((exit_logits(network, images)[-1].argmax(axis=1) == labels).mean())

    rows: list[dict[str, Any]] = []
    for name, (weights, mean, std) in NETWORKS.items():
        network = Network(Architecture(name, 16, "B", 3, 10), (32, 32))
        load_weights(network.body, options.weights / weights, [mean] * 3, [std] * 3)
        original = accuracy(network.eval())
        for bits in BITS:
            quantized = copy.deepcopy(network)
            quantized.quantize(QuantSpec(*bits, 8))
            calibrate(quantized, batches)
            row = {"network": name, "bits": "x".join(map(str, bits)), "float": original}
            row["calibrated"] = accuracy(quantized)
            post_training.choose_steps(quantized, batches)
            row["steps"] = accuracy(quantized)
            post_training.correct_biases(quantized, batches[0])
            row["biases"] = accuracy(quantized)
            print(row, flush=True)
            rows.append(row)
    report = {"cpu": environment.cpu(), "data": options.data.partition(":")[0], "images": len(labels)}
    files.write_json(options.json, report | {"chosen_on": CHOSEN_ON, "rows": rows})


if __name__ == "__main__":
    main()
