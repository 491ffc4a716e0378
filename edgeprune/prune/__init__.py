"""What is removed from a model, and from where.

- ``channels/``: which channels of a model depend on each other (the *channel graph*), and the surgery that removes
  them.
- ``choice/``: which of them matter least, and how many each layer loses under a budget.
- ``weights/``: single weights that become zero while the model trains.
- ``sparse/``: a model made ready for XNNPACK's sparse kernels.
- ``filters.py``: graph, choice and surgery in one call; ``inspection.py``: what could be pruned and what it would save;
  ``repair.py``: repair without training; ``penalties.py``: training that makes small what is to be removed.

A new pruning method is a file here, a section of the recipe (:mod:`edgeprune.recipe.config`) and a stage
(:mod:`edgeprune.stages`).

Words of this package:

unit
    The smallest set of channels that can only be removed together: one filter, the bias and the normalization behind
    it, and the slices of every layer that reads it. Where layers meet in an addition, one unit holds a channel of each.
    (A granularity of single weights calls what it zeroes together a unit, too.)
vector
    The units along one axis of a tensor or weight, one number per position. (In ``targets/``, a *vector* is as many
    channels as a processor computes at once.)
group
    The units that one or several layers make together; their number is what the surgery changes in these layers. Known
    elsewhere as a dependency group (Fang et al. 2023, arXiv:2301.12900).
frozen
    Of a unit: it cannot be removed, for the reason that is kept with it, such as being an output of the model.
role
    What an axis of a weight does with its units: *produced* (the layer makes them), *consumed* (it sums over them),
    *followed* (one value per channel is passed through) or *matched* (summed over by the layer itself, as queries with
    keys).
keep
    A truth value per unit of a model, ``bool [units]``: which of them stay. Surgery and oracle are made from it.
criterion
    How important a unit is: a score per unit (``choice/criteria.py``), or per weight (``weights/masked.py``).
evidence
    What a criterion looks at beside the weights: training batches and the loss; for single weights, what was added up
    over the training steps so far.
budget
    What is to be kept of a model, as fractions of its multiply-accumulates or parameters; or the fraction of its
    filters that is removed.
ladder
    The widths that a group may have: the least important units go first, and the channels that stay fill whole vectors
    of the processor.
oracle
    The unpruned model with the removed channels set to zero where they are read: the pruned model must compute the
    same. Of a removed block, the model with the block's branch multiplied by zero.
block
    What lies between two tensors of the same shape and can be bypassed: a residual branch, or a chain of layers.
mask
    Of a kernel: zeros and ones in its shape, which of its weights stay. Of channels: zeros and ones along one axis of a
    tensor, in the oracle.
mask schedule
    At which training steps the masks of a model are chosen anew, and how sparse they are then.
engine
    An implementation of weight pruning: tfmot's, or the one in ``weights/masked.py``.
"""
