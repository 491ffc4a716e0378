"""Peak memory and speed of streaming a folder of images, or of sound files, once.

python benchmarks/data_memory.py FOLDER [SIZE] [--recipe RECIPE]

A recipe with [data.sound] says what is made of sound files.
"""

import argparse
import resource
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("size", nargs="?", type=int, default=32)
    parser.add_argument("--recipe", help="a name or a TOML file")
    options = parser.parse_args()

    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.data import InputSpec, load_data
    from edgeprune.data.sound.folder import front_shape
    from edgeprune.recipe.config import DataConfig
    from edgeprune.recipe.load import load_recipe

    before = _peak_mb()
    config = load_recipe(options.recipe).data if options.recipe else DataConfig()
    shape = front_shape(config.sound) if config.sound else (options.size, options.size, 3)
    start = time.perf_counter()
    data = load_data(options.folder, config, InputSpec((shape,)), seed=0)
    print(f"opened in {time.perf_counter() - start:.1f} s")
    for split in (data.train, data.validation, data.test):
        start = time.perf_counter()
        count = sum(len(y) for _, y in split.batches(32, shuffle_seed=1))
        seconds = time.perf_counter() - start
        print(f"{count} samples in {seconds:.1f} s, {count / seconds:.0f} per second; peak {_peak_mb():.0f} MB")
    print(f"over what importing TensorFlow took: {_peak_mb() - before:.0f} MB")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
