"""Seeds for the fuzzer: small whole files of every width, and the malformed ones.

python tests/native/seeds.py DIR
"""

import sys
from pathlib import Path

import corpus
from coc_runtime import cocwrite
from graphs import as_regression, random_graph, random_inception, random_mobile


def main(folder: str) -> None:
    corpus.main(folder)
    for seed, (bits, act_bits, exits) in enumerate(((1, 8, 2), (2, 8, 1), (4, 4, 1), (8, 8, 0), (1, 4, 0))):
        graph = random_graph(seed, bits=bits, act_bits=act_bits, exits=exits, channels=4, size=6, classes=3)
        Path(folder, f"whole-{bits}x{act_bits}-{exits}.coc").write_bytes(cocwrite.dump(graph))
        joined = random_inception(seed, bits, act_bits, exits, channels=3, size=7, classes=3)
        Path(folder, f"joined-{bits}x{act_bits}-{exits}.coc").write_bytes(cocwrite.dump(joined))
        multiplied = random_mobile(seed, bits, act_bits, exits, channels=3, size=5, classes=3)
        Path(folder, f"multiplied-{bits}x{act_bits}-{exits}.coc").write_bytes(cocwrite.dump(multiplied))
        numbers = as_regression(graph)
        Path(folder, f"numbers-{bits}x{act_bits}-{exits}.coc").write_bytes(cocwrite.dump(numbers))


if __name__ == "__main__":
    main(sys.argv[1])
