"""Output of benchmark_model, as its releases print it."""
# ruff: noqa: E501

import pytest

from edgeprune.devices.benchmark_model import parse

# github.com/tensorflow/tensorflow/issues/42507: TensorFlow 2.3 on a phone, shortened.
OLD = """\
STARTING!
Num threads: [4]
Graph: [/data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite]
#threads used for CPU inference: [4]
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory \
footprint of the model at runtime. Take the information at your discretion.
Peak memory footprint (MB): init=0 overall=12.8672
"""
# github.com/NobuoTsukamoto/meta-tensorflow-lite, its notes on the benchmark tool: 2.8, shortened to two operators.
SLOW = """\
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t            0.000\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Timings (microseconds): count=1 curr=1356



Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.066\t   87.754\t   60.957\t  2.066%\t  2.066%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]:0
\t       DEPTHWISE_CONV_2D\t           61.033\t   53.628\t   49.870\t  1.691%\t  3.757%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_1_depthwise/Relu6]:1

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t          898.426\t  263.724\t  277.374\t  9.403%\t  9.403%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_5_pointwise/Relu6]:10

Number of nodes executed: 31
Timings (microseconds): count=50 first=2989660 curr=2912978 min=2727203 max=3189476 avg=2.9499e+06 std=109770
Memory (bytes): count=0
31 nodes observed
"""
# Arm Total Compute tc2, "Expected test results": "INFO: " and no [start], shortened.
XNNPACK = """\
INFO: STARTING!
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 16.772ms.
INFO: count=67 first=8781 curr=7197 min=6335 max=9775 avg=7514.93 std=419

INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=67 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256

INFO: Inference timings in us: Init: 16772, First inference: 8781, Warmup (avg): 7514.93, Inference (avg): 7454.97
INFO: Memory footprint delta from the start of the tool (MB): init=8.44922 overall=10.8789
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t                         [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t             ModifyGraphWithDelegate\t   14.842\t   14.842\t 99.317%\t 99.317%\t  3428.000\t        1\tModifyGraphWithDelegate/0

INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t                         [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t       Convolution (NHWC, QU8) IGEMM\t    0.267\t    0.278\t  3.783%\t  3.783%\t     0.000\t        1\tDelegate/Convolution (NHWC, QU8) IGEMM:0
\t                       Add (ND, QU8)\t    0.051\t    0.051\t  0.693%\t 26.477%\t     0.000\t        1\tDelegate/Add (ND, QU8):9
"""
# The logcat of a release that prints percentiles, as quoted in public notes on its format.
PERCENTILES = """\
I tflite  : count=3 first=235158 curr=199462 min=199462 max=235158 avg=211669 std=16613 p5=199462 median=200386 p95=235158
I tflite  : count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583 p5=140545 median=141253 p95=187533
I tflite  : Inference timings in us: Init: 92318, First inference: 187533, Warmup (avg): 211669, Inference (avg): 145528
I tflite  : Memory footprint delta from the start of the tool (MB): init=54.2852 overall=73.4102
"""
# github.com/tensorflow/tensorflow/issues/56301: NNAPI took a part.
NNAPI = """\
I tflite  : Explicitly applied NNAPI delegate, and the model graph will be partially executed by the delegate w/ 44 delegate kernels.
I tflite  : count=40 first=32942 curr=12594 min=11340 max=32942 avg=12581.9 std=3331
I tflite  : count=75 first=12840 curr=11853 min=11787 max=13649 avg=12167.6 std=325
I tflite  : Inference timings in us: Init: 126059, First inference: 32942, Warmup (avg): 12581.9, Inference (avg): 12167.6
"""
# github.com/google-ai-edge/LiteRT, litert/tools/README.md: the tool of the same name for CompiledModel.
COMPILED = """\
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: [benchmark_litert_model.h:82]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:83] Model initialization: 45.32 ms
INFO: [benchmark_litert_model.h:84] Warmup (first):       120.45 ms
INFO: [benchmark_litert_model.h:86] Warmup (avg):         98.76 ms (1 runs)
INFO: [benchmark_litert_model.h:88] Inference (avg):      85.23 ms (50 runs)
INFO: [benchmark_litert_model.h:92] Inference (min):      82.10 ms
INFO: [benchmark_litert_model.h:94] Inference (max):      92.45 ms
INFO: [benchmark_litert_model.h:96] Inference (std):      3.21
INFO: [benchmark_litert_model.h:104] Throughput:           12.45 MB/s
Memory Usage:
INFO: [benchmark_litert_model.h:115] Init footprint:       25.60 MB
INFO: [benchmark_litert_model.h:117] Overall footprint:    32.40 MB
INFO: [benchmark_litert_model.h:122] Peak memory:          35.20 MB
======================================
"""
NOT_TAKEN = "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.\n" + OLD


@pytest.mark.parametrize(
    ("text", "runs", "mean_ms", "std_ms", "init_ms", "first_ms", "peak_mib", "median_ms"),
    [
        (OLD, 50, 33.2094, 0.45, 0.855, 49.06, 12.8672, None),
        (SLOW, 50, 2950.34, 109.798, 17.187, 3512.391, 46.0859, None),
        (XNNPACK, 67, 7.45497, 0.256, 16.772, 8.781, 10.8789, None),
        (PERCENTILES, 25, 145.528, 13.583, 92.318, 187.533, 73.4102, 141.253),
        (COMPILED, 50, 85.23, 3.21, 45.32, 120.45, 32.40, None),
        (COMPILED.replace("Warmup (first): ", "First inference:"), 50, 85.23, 3.21, 45.32, 120.45, 32.40, None),
    ],
)
def test_figures_are_those_of_the_regular_runs(text, runs, mean_ms, std_ms, init_ms, first_ms, peak_mib, median_ms):
    """Every release's figures are read, in milliseconds and bytes, and not the warm-up's or the profile's."""
    found = parse(text)
    assert (found.runs, found.init_ms, found.first_ms) == (runs, init_ms, first_ms)
    assert (found.times_ms["mean_ms"], found.times_ms["std_ms"]) == (pytest.approx(mean_ms), std_ms)
    assert found.times_ms["median_ms"] == median_ms
    assert found.peak_bytes == round(peak_mib * 2**20)


def test_a_block_of_results_without_runs_is_no_result():
    """CompiledModel's tool that ran nothing gives no figures."""
    with pytest.raises(ValueError, match="Inference"):
        parse(COMPILED.replace("(50 runs)", ""))
    found = parse(COMPILED).times_ms
    assert (found["min_ms"], found["max_ms"], found["p95_ms"]) == (82.10, 92.45, None)


def test_operators_are_those_of_the_regular_runs_in_order():
    """The table of operators is found by its columns' names, with and without [start]; other tables are not mixed in."""
    first, second = parse(SLOW).operators
    assert (first["type"], first["mean_ms"], first["calls"]) == ("CONV_2D", 60.957, 1)
    assert second["name"] == "[MobilenetV1/MobilenetV1/Conv2d_1_depthwise/Relu6]:1"
    assert [row["type"] for row in parse(XNNPACK).operators] == ["Convolution (NHWC, QU8) IGEMM", "Add (ND, QU8)"]
    assert parse(XNNPACK).operators[0]["mean_ms"] == 0.278
    assert parse(OLD).operators == []


def test_delegates_that_ran_are_told_from_those_asked_for():
    """XNNPACK, a part, and a delegate that took nothing are all told apart."""
    assert [parse(text).xnnpack for text in (OLD, XNNPACK, COMPILED)] == [False, True, True]
    assert [parse(text).delegated for text in (OLD, NNAPI, NOT_TAKEN)] == [None, "some", "none"]


@pytest.mark.parametrize("text", ["", "STARTING!\n", OLD.split("Inference timings")[0], "Inference timings in us: "])
def test_output_without_a_result(text):
    """What was broken off is no result."""
    with pytest.raises(ValueError, match="Inference timings"):
        parse(text)
