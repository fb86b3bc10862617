"""Times `import tfprune` and `import keras`, in turns, each in fresh processes."""

import os
import subprocess
import sys

from harness import arguments, show, summary, write

CODE = """
import time
import keras
start = time.perf_counter()
import tfprune
print(time.perf_counter() - start)
"""


def main():
    options = arguments(__doc__).parse_args()
    seconds = []
    for _ in range(options.rounds):
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        seconds.append(float(done.stdout.splitlines()[-1]))
    found = summary(seconds)
    show(
        "Import time",
        ("what", "seconds (quartiles)"),
        [
            (
                "import tfprune, after import keras",
                f"{found['median']:.3f} ({found['low']:.3f} to {found['high']:.3f})",
            )
        ],
    )
    write("import_time", options.output, {"seconds": found})


if __name__ == "__main__":
    main()
