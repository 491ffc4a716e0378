"""Sources for microcontrollers: the array is the file, and the programs are C++ against the interpreter's interface.

Headers of TensorFlow Lite Micro are in no package, so declarations of what is used stand in for them here, as its
sources of October 2026 have them. Nothing is linked.
"""

import dataclasses
import shutil
import subprocess

import pytest

from edgeprune.runtime.micro import estimated_footprint
from edgeprune.snippets.micro import write_sources
from edgeprune.tflite.compact import compact
from edgeprune.tflite.encode import encoded
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.micro import resolver_methods

COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")
LABELS = ["zero", 'o"ne', "zwölf\\", "what??/"]
INTERPRETER = """
#pragma once
#include <stddef.h>
#include <stdint.h>
#define TFLITE_SCHEMA_VERSION 3
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
enum TfLiteType { kTfLiteFloat32 = 1, kTfLiteUInt8 = 3, kTfLiteInt8 = 9 };
struct TfLiteTensor {
  TfLiteType type;
  union { float* f; char* raw; uint8_t* uint8; int8_t* int8; } data;
  struct { float scale; int32_t zero_point; } params;
  size_t bytes;
};
namespace tflite {
struct Model { uint32_t version() const; };
const Model* GetModel(const void* buffer);
class MicroOpResolver {};
template <unsigned int tOpCount> class MicroMutableOpResolver : public MicroOpResolver {
 public:
  %s
};
class MicroInterpreter {
 public:
  MicroInterpreter(const Model*, const MicroOpResolver&, uint8_t*, size_t);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(size_t);
  TfLiteTensor* output(size_t);
  size_t inputs_size() const;
  size_t arena_used_bytes() const;
};
}
"""
OTHERS = {
    "esp_timer.h": "#include <stdint.h>\nint64_t esp_timer_get_time(void);\n",
    "freertos/FreeRTOS.h": "",
    "freertos/task.h": "void vTaskDelay(unsigned ticks);\n",
    "Arduino.h": """#include <stddef.h>
struct Port {
  void begin(unsigned long);
  size_t readBytes(char*, size_t);
  void print(const char*); void print(char); void print(unsigned long); void print(float, int);
  void println(const char*); void println(unsigned long);
};
extern Port Serial;
unsigned long micros();
""",
}


@pytest.fixture(scope="module")
def sources(micro_file, tmp_path_factory):
    """The folder, the file as it is flashed, and what it takes."""
    folder, content = tmp_path_factory.mktemp("sources"), micro_file.read_bytes()
    encoding = encoded(content)
    flashed = folder / "flashed.tflite"
    flashed.write_bytes(compact(encoding.content))
    model = parse(flashed.read_bytes())
    facts = {
        **dataclasses.asdict(estimated_footprint(flashed.stat().st_size, model.subgraphs[0])),
        "plain_bytes": len(content),
        "plain_ram_bytes": 1,
        "codes": {one.name: one.code for one in encoding.tensors if one.code},
        "methods": list(resolver_methods(model)),
    }
    write_sources(folder / "micro", "my-model", flashed, facts, LABELS)
    return folder / "micro", flashed, facts


@pytest.fixture
def headers(sources, tmp_path):
    """A folder with declarations in the place of the interpreter's headers."""
    methods = "\n  ".join(f"TfLiteStatus {method}();" for method in sources[2]["methods"])
    micro = "tensorflow/lite/micro"
    files = {f"{micro}/micro_interpreter.h": '#include "micro_mutable_op_resolver.h"\n', **OTHERS}
    files |= {f"{micro}/micro_mutable_op_resolver.h": INTERPRETER % methods}
    files |= {"tensorflow/lite/schema/schema_generated.h": ""}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def compiled(*arguments):
    done = subprocess.run(
        [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_the_array_is_the_file(sources, tmp_path):
    """Compiled, at a multiple of 16, it writes the bytes that were measured."""
    folder, flashed, _ = sources
    (tmp_path / "main.cc").write_text(
        '#include <stdint.h>\n#include <stdio.h>\n#include "model_data.h"\nint main() {\n'
        "  fwrite(kModel, 1, kModelBytes, stdout);\n  return reinterpret_cast<uintptr_t>(kModel) % 16;\n}\n"
    )
    compiled("-I", folder, tmp_path / "main.cc", folder / "model_data.cc", "-o", tmp_path / "write")
    written = subprocess.run([tmp_path / "write"], capture_output=True, check=True)
    assert written.stdout == flashed.read_bytes()


@needs_compiler
def test_the_programs_are_valid(sources, headers):
    """Sketch and ESP-IDF program compile without a warning against the interface that they use."""
    folder, _, _ = sources
    sketch = folder / "arduino" / "my_model"
    given = ("-fsyntax-only", "-I", headers)
    compiled(*given, "-include", "Arduino.h", "-I", sketch, "-x", "c++", sketch / "my_model.ino")
    compiled(*given, "-I", folder / "esp-idf" / "main", folder / "esp-idf" / "main" / "main.cc")


def test_figures_stand_in_the_sources(sources):
    """The size of the arena, exactly the operators that are needed, and all labels."""
    folder, _, facts = sources
    text = (folder / "model_runner.h").read_text()
    assert f"kArenaBytes = {facts['ram_bytes']};" in text
    assert f"MicroMutableOpResolver<{len(facts['methods'])}>" in text
    assert text.count("resolver.Add") == len(facts["methods"])
    assert '"o\\042ne"' in text
    readme = (folder / "README.md").read_text()
    assert f"{facts['ram_bytes']:,}" in readme
    assert "1 x 8 x 8 x 3" in readme


def test_projects_are_complete(sources):
    """A sketch has its sources beside it, since Arduino takes no others; so has the component of ESP-IDF."""
    folder, _, _ = sources
    shared = {"model_data.h", "model_runner.h"}
    assert {path.name for path in (folder / "arduino/my_model").iterdir()} == {
        *shared,
        "my_model.ino",
        "model_data.cpp",
    }
    main = {path.name for path in (folder / "esp-idf/main").iterdir()}
    assert main == {*shared, "main.cc", "model_data.cc", "CMakeLists.txt", "idf_component.yml"}
