"""Fine-tuning, and what it is made of: the task (loss and metric), distillation, augmentation, seeds.

What changes the samples of an epoch belongs in ``augmentation``; what changes the loss is a module that makes a new
task out of a task, as ``distillation`` does. The loop in ``finetune`` stays the same for all of them. Training for int8
is in :mod:`edgeprune.quantize`, training under a pruning mask in :mod:`edgeprune.prune.weights`.
"""
