"""Peak memory and speed of streaming an image folder once.

python benchmarks/data_memory.py FOLDER [SIZE]
"""

import argparse
import resource
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("size", nargs="?", type=int, default=32)
    options = parser.parse_args()

    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.data import InputSpec, load_data
    from edgeprune.recipe.config import DataConfig

    before = _peak_mb()
    spec = InputSpec(shapes=((options.size, options.size, 3),), names=("input",), dtypes=("float32",))
    data = load_data(options.folder, DataConfig(), spec, seed=0)
    for split in (data.train, data.validation, data.test):
        start = time.perf_counter()
        count = sum(len(y) for _, y in split.batches(32, shuffle_seed=1))
        seconds = time.perf_counter() - start
        print(f"{count} images in {seconds:.1f} s, {count / seconds:.0f} per second; peak {_peak_mb():.0f} MB")
    print(f"over what importing TensorFlow took: {_peak_mb() - before:.0f} MB")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
