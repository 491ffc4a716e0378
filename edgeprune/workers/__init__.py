"""Native code in processes of its own, so that what crashes there is an error here.

TensorFlow's converter and its calibrator, and the interpreters of .tflite files, are C++ that ends its process where
it finds a contradiction. A :class:`Worker` is a child process that stays warm between calls: functions are sent to it
by name, their arguments by pickle, and a death by a signal, by memory or by time becomes a :class:`WorkerDied`.
"""

from edgeprune.workers.worker import Remote, Stream, Worker, WorkerDied, how_it_ended

__all__ = ["Remote", "Stream", "Worker", "WorkerDied", "how_it_ended"]
