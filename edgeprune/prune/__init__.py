"""What is removed from a model, and from where.

- ``channels/``: which channels of a model hang together (the *channel graph*), and the surgery that removes them.
- ``choice/``: which of them matter least, and how many each layer loses under a budget.
- ``weights/``: single weights that become zero while the model trains.
- ``sparse/``: a model made ready for XNNPACK's sparse kernels.
- ``filters.py``: graph, choice and surgery in one call; ``compensation.py``: repair without training; ``penalties.py``:
  training that makes small what is to be removed.

Words of this package:

unit
    The smallest set of channels that can only be removed together: one filter, the bias and the normalization behind
    it, and the slices of every layer that reads it. Where layers meet in an addition, one unit holds a channel of each.
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
criterion
    How important a unit is: a score per unit (``choice/criteria.py``).
budget
    What is to be kept of the model: fractions of its multiply-accumulates, parameters, or filters.
candidate
    A group with its removable units in the order in which they would go.
bundle
    As many units of one candidate as go at once, so that what stays fills whole vectors of the processor.
order
    In which sequence the bundles of all candidates go; a budget decides how far it is followed.
oracle
    The unpruned model with the removed channels set to zero where they are read: the pruned model must compute the
    same.
mask
    Zeros and ones in the shape of a kernel: which of its weights stay.
"""
