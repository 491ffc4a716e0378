"""How much faster training is with oneDNN's kernels: seconds per step of a small convolutional network.

python benchmarks/onednn.py [RUNS]
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys

STEPS = 20
CODE = f"""
import time
from edgeprune._tensorflow import import_tf
tf = import_tf()
import tf_keras
layers = tf_keras.layers
x = inputs = layers.Input([32, 32, 3])
for filters in (16, 16, 32, 32, 64):
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))
model = tf_keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
batch = tf.random.normal([64, 32, 32, 3]), tf.zeros([64])
model.train_on_batch(*batch)
start = time.perf_counter()
for _ in range({STEPS}):
    model.train_on_batch(*batch)
print((time.perf_counter() - start) / {STEPS})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=int, default=3)
    runs = parser.parse_args().runs
    print(f"{platform.system()}, {os.cpu_count()} cores; {STEPS} steps of 64 images of 32x32")
    ratios = []
    for _ in range(runs):
        on, off = _seconds("1"), _seconds("0")
        ratios.append(on / off)
        print(f"with oneDNN {on * 1e3:.0f} ms per step, without {off * 1e3:.0f} ms, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def _seconds(value: str) -> float:
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": value}
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)


if __name__ == "__main__":
    main()
