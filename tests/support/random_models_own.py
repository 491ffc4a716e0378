"""Layers, models and a loss of a user, as they are handed to --custom-objects."""

import keras
import tf_keras


class Shift(tf_keras.layers.Layer):
    """A layer of Keras 2 with a weight."""

    def build(self, shape):
        self.amount = self.add_weight(name="amount", shape=(shape[-1],), initializer="ones")
        super().build(shape)

    def call(self, x):
        return x + self.amount


class Stretch(keras.layers.Layer):
    """A layer of Keras 3 with a weight."""

    def build(self, shape):
        self.amount = self.add_weight(name="amount", shape=(shape[-1],), initializer="ones")
        super().build(shape)

    def call(self, x):
        return x * self.amount


@tf_keras.saving.register_keras_serializable(name="Stretch")
class Stretch2(tf_keras.layers.Layer):
    """The same for Keras 2."""

    def build(self, shape):
        self.amount = self.add_weight(name="amount", shape=(shape[-1],), initializer="ones")
        super().build(shape)

    def call(self, x):
        return x * self.amount


class Calls(tf_keras.Model):
    """A model that only calls its layers."""

    def __init__(self, parts=(), **options):
        super().__init__(**options)
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        return {"name": self.name, "parts": [tf_keras.saving.serialize_keras_object(part) for part in self.parts]}

    @classmethod
    def from_config(cls, config):
        parts = [tf_keras.saving.deserialize_keras_object(part) for part in config["parts"]]
        return cls(parts, name=config["name"])


class Calls3(keras.Model):
    """The same of Keras 3."""

    def __init__(self, parts=(), **options):
        super().__init__(**options)
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        return {"name": self.name, "parts": [keras.saving.serialize_keras_object(part) for part in self.parts]}

    @classmethod
    def from_config(cls, config):
        parts = [keras.saving.deserialize_keras_object(part) for part in config["parts"]]
        return cls(parts, name=config["name"])


def own_loss(true, predicted):
    """A loss of its own."""
    return tf_keras.backend.mean((true - predicted) ** 2, axis=-1)
