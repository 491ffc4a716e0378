"""Have ``emulator_guest.py`` do a job on the emulated board."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgeprune.devices.emulator_home import SETUP
from edgeprune.devices.protocol import Completed, Device
from edgeprune.errors import DeviceError, EdgepruneError, ModelError
from edgeprune.files import JsonObject
from edgeprune.runtime import runner

_GUEST = Path(__file__).with_name("emulator_guest.py")
_JOB = "job.json"
TIMEOUT_S = 3600.0


def run_job(device: Device, job: JsonObject, run: Callable[..., Completed] | None = None) -> list[JsonObject]:
    """Do a job; one result per file.

    Args:
        device: connected; the files of the job are on it.
        job: see ``emulator_guest.py``.
        run: in place of the device's own.

    Raises:
        ModelError: the runtime refuses a file.
        DeviceError: it did not end in time, or crashed.
    """
    device.push(Path(runner.__file__), "runner.py")
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        (Path(folder) / _JOB).write_text(json.dumps(job), "utf-8")
        # The same arguments every time: the length of a command line moves the stack, which changes the count.
        words = [device.push(_GUEST, _GUEST.name), device.push(Path(folder) / _JOB, _JOB)]
    done = (run or device.run)([device.python, *words], timeout_s=TIMEOUT_S)
    document = _last_document(done.stdout)
    if done.code or "results" not in document:
        raise _failure(device, done.code, document, done.stderr)
    return document["results"]


def _last_document(output: bytes) -> JsonObject:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}


def _failure(device: Device, code: int, document: JsonObject, errors: str) -> EdgepruneError:
    if document.get("code") == runner.MODEL:
        return ModelError(
            f"{device.address}: {document['error']}.",
            fix="run `edgeprune profile` on the file: it shows which release of a runtime it needs.",
        )
    said = document.get("error") or " ".join(errors.split())[-500:] or "it printed nothing"
    return DeviceError(
        f"The emulated board ended with exit code {code}: {said}.",
        fix=f"run `{SETUP}`, which repairs a damaged board; if that does not help, please report what --debug shows.",
    )
