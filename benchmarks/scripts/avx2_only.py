"""Run a benchmark beside an ONNX Runtime that takes this CPU for one with AVX2 alone.

    python benchmarks/scripts/avx2_only.py benchmarks/scripts/conv_kernels.py --json out.json

ONNX Runtime asks the CPU what it can do and has no setting to use less. This makes a copy of the installed
package in build/avx2-only, replaces the `cpuid` instructions of its library by `ud2`, and preloads a handler
that answers in their place without AVX-512, VNNI and AMX. The rest of the copy is as installed. Results made
like this say so: COC_ONNXRUNTIME names the alteration and the scripts write it into their environment.
Linux on x86-64; needs cc and objdump.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/avx2-only"
ALTERATION = "its cpuid answers hide AVX-512, VNNI and AMX"
CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def sections(library: Path) -> list[tuple[int, int, int]]:
    """(address, size, offset in the file) of what the library maps as code."""
    text = subprocess.run(["objdump", "-hw", library], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in text.splitlines() if "CODE" in line)
    return [(int(row[3], 16), int(row[2], 16), int(row[5], 16)) for row in rows]


def cpuid_addresses(library: Path) -> list[int]:
    command = ["objdump", "-d", "--no-show-raw-insn", library]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = [re.match(r"\s*([0-9a-f]+):\s+cpuid", line) for line in process.stdout]
    return [int(match[1], 16) for match in found if match]


def hide(library: Path) -> int:
    """Replace the library's cpuid instructions; their number."""
    data, addresses = bytearray(library.read_bytes()), cpuid_addresses(library)
    for address in addresses:
        start, _, offset = next(s for s in sections(library) if s[0] <= address < s[0] + s[1])
        at = address - start + offset
        assert data[at : at + 2] == CPUID
        data[at : at + 2] = UD2
    library.write_bytes(data)
    return len(addresses)


def prepare() -> None:
    """Make the copy and the handler, once."""
    done = FOLDER / "done"
    if done.exists():
        return
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        sys.exit("avx2_only: onnxruntime is not installed")
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(Path(spec.origin).parent, FOLDER / "onnxruntime")
    for library in (FOLDER / "onnxruntime/capi").glob("onnxruntime_pybind11_state*.so"):
        print(f"replaced {hide(library)} cpuid instructions in {library.name}", file=sys.stderr)
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", FOLDER / "avx2_only.so", source], check=True)
    done.touch()


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit("usage: avx2_only.py SCRIPT.py [ARGUMENT ...]")
    prepare()
    paths = [str(FOLDER), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "LD_PRELOAD": str(FOLDER / "avx2_only.so"),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "COC_ONNXRUNTIME": ALTERATION,
    }
    return subprocess.run([sys.executable, *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
