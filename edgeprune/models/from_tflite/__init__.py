"""A .tflite → a functional tf_keras model whose constants are weights of layers, so that everything prunes.

``read`` builds the model operator by operator: what an operator becomes is a rule in the table of ``registry``, entered
under :func:`~edgeprune.models.from_tflite.registry.rule` by the module of its kind: ``convolutions``, ``elementwise``,
``reductions``, ``shapes``, ``recurrent``, ``loops``, ``quantization``, ``states``. ``content`` cuts and resizes files
before that. A rule sees its operator as a
:class:`~edgeprune.models.from_tflite.call.Call`. ``check`` compares with what the interpreter computes.

A file computes for one sample; the model gets a batch. Each tensor here begins with that batch: a tensor of the file
whose first axis has size 1 loses that axis to it, any other gets one more axis (:class:`~.call.Value`). So no operation
ever mixes samples, whatever the file does with its axes.
"""

from edgeprune.models.from_tflite.read import Imported, import_tflite

__all__ = ["Imported", "import_tflite"]
