"""Makes a smaller model that computes the same, or one that meets targets."""

from tfprune import patterns
from tfprune._base import validation as check
from tfprune._channels.graph import without_wrappers
from tfprune._keras.checks import check_followable
from tfprune._reports.runtime_meter import RuntimeMeter
from tfprune._wrapping.wrapper import mask_owners
from tfprune.structural.candidates import Candidates
from tfprune.structural.latency_target import LatencyTarget
from tfprune.structural.plan_maker import PlanMaker
from tfprune.structural.sensitivity import search_by_sensitivity
from tfprune.structural.silent_channels import plan_removal
from tfprune.structural.targets import OutOfReach, check_runtime, check_targets, share
from tfprune.structural.uniform import exempting_rules

_SCATTERED = (patterns.Unstructured, patterns.NOfM, patterns.Block)


def plan_shrink(
    model,
    targets=None,
    *,
    criterion=None,
    scope=None,
    rules=None,
    round_to=None,
    data=None,
    batches=8,
    batch_size=32,
    loss=None,
    latency_batch_size=1,
    runtime="keras",
    threads=1,
    allocation=None,
    uniform=False,
    verbose=1,
):
    """Finds the channels that a model can lose without changing its outputs.

    See `shrink`, which has the same arguments and raises the same errors.

    Returns:
        A `ShrinkPlan`: `print` it, and `plan.apply()` is the smaller model.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
    ... )
    >>> kernel, bias, *others = model.get_weights()
    >>> kernel[:, 1], bias[1] = 0, 0.5
    >>> model.set_weights([kernel, bias, *others])
    >>> plan = tfprune.plan_shrink(model)
    >>> plan.groups[0].removed, plan.before.parameters, plan.after.parameters
    ((1,), 46, 35)
    """
    check_followable(model)
    if round_to is not None:
        round_to = check.integer("round_to", round_to, 1, "Use for instance 8; 1 rounds nothing.")
    check.choice("uniform", uniform, (False, True))
    if targets is None:
        given = {"criterion": criterion, "scope": scope, "rules": rules, "data": data}
        _check_alone(**given, loss=loss, allocation=allocation)
        check_runtime(runtime, targets)
        _check_masks(model)
        return plan_removal(without_wrappers(model), round_to or 1, uniform)
    targets = dict(check_targets(targets))
    check.choice("allocation", allocation, (None, "sensitivity"))
    if allocation is not None and scope is not None:
        raise ValueError(
            check.message(
                "either `scope` or `allocation`, which both share the filters out",
                f"scope={scope!r}, allocation={allocation!r}",
                "Leave one of them out.",
            )
        )
    mend = "Use for instance 32."
    batch = check.integer("latency_batch_size", latency_batch_size, 1, mend)
    meter = RuntimeMeter(runtime, threads, batch, verbose=verbose)
    check_runtime(runtime, targets)
    counted = {name: target for name, target in targets.items() if name != "latency"}
    evidence = {"data": data, "batches": batches, "batch_size": batch_size, "loss": loss}

    plain = without_wrappers(model)

    def plan_with(step):
        unpruned = plan_removal(plain, step, uniform)
        enough = not counted or share(unpruned, counted) <= 1
        if enough and len(counted) == len(targets):
            unpruned.sparsity = 0.0
            return unpruned
        candidates = Candidates(
            model,
            plain,
            patterns.Filter(round_to=step),
            criterion,
            scope,
            exempting_rules(plain, rules) if uniform else rules,
            {**evidence, "verbose": verbose},
        )

        def make_plan(pruned):
            return plan_removal(without_wrappers(pruned), step, uniform)

        if allocation is not None:
            return search_by_sensitivity(candidates, plain, targets, make_plan, evidence)
        maker, low = PlanMaker(candidates, make_plan, uniform), 0.0
        if not enough:
            low, plan = maker.counted(plain, counted)
        if "latency" in targets:
            with meter:
                target = LatencyTarget(targets["latency"], meter, plain, runtime)
                plan = target.search(maker.at, low, candidates.highest)
        return plan

    try:
        plan = plan_with(round_to)
    except OutOfReach:
        if round_to is not None:
            raise
        # Only multiples of 8 are too coarse, or nothing is fine enough: the message says which.
        plan = plan_with(1)
    plan.targets = targets
    return plan


def _check_alone(**arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                check.message(
                    f"`targets` where `{name}` is given",
                    "no targets: without them, only silent channels are removed, whatever "
                    "their scores",
                    'Pass for instance targets={"macs": 0.5}, or prune the model first.',
                )
            )


def _check_masks(model):
    weights = [(owner, weight) for owner in mask_owners(model) for weight in owner.pruned_weights]
    if weights and all(isinstance(weight.method.pattern, _SCATTERED) for _, weight in weights):
        owner, weight = weights[0]
        raise ValueError(
            check.message(
                "masks of whole filters",
                f"'{owner.name}' with the pattern {weight.method.pattern!r}",
                'Prune with prune_low_magnitude(model, ..., pattern="filter").',
            )
        )


def shrink(
    model,
    targets=None,
    *,
    criterion=None,
    scope=None,
    rules=None,
    round_to=None,
    data=None,
    batches=8,
    batch_size=32,
    loss=None,
    latency_batch_size=1,
    runtime="keras",
    threads=1,
    allocation=None,
    uniform=False,
    verbose=1,
):
    """Makes a smaller model by removing silent channels, or enough channels to meet targets.

    Without `targets`, the smaller model computes the same.

    A channel is removed if it is zero for every input at inference, or if no layer reads it. A
    channel with another constant value (from the bias of a filter of zeros, say, or from a
    BatchNormalization or activation after it) is removed if every layer that reads it can absorb
    the constant exactly into its bias: dense layers, and convolutions without padding. All other
    channels are kept; `plan_shrink` gives the reasons.

    With `targets`, filters are pruned first: the lowest-scoring ones, as few as meet all targets.
    The smaller model computes the same as the pruned one; fine-tune it.

    Args:
        model: A built Sequential or Functional model, either wrapped with a pattern of whole
            filters, or plain with filters of zeros. It is not changed.
        targets: `{"macs": ..., "parameters": ..., "latency": ...}` with one or more entries: the
            largest cost of the smaller model, as a fraction of the model's cost. MACs and
            parameters may also be whole numbers, and are met to within one rounding step.
            Candidates for a latency are measured on this machine, so the result varies; the
            plan's `measured` holds the final measurement.
        criterion: For `targets`: a criterion or its name; by default, the magnitude.
        scope: For `targets`: "local" (the default: all groups get the same sparsity), "global", a
            scope or a distribution.
        rules: For `targets`: list of `Rule`s that exempt layers or vary the method by layer.
        round_to: Keep a multiple of this many channels in every layer that has as many. Many
            processors run such layers faster, and some run others slower than the whole model. By
            default, with `targets`, 8 in groups of 16 channels and more, else 1, and 1 everywhere
            if the targets cannot be reached otherwise; without `targets`, exactly the silent
            channels go.
        data: For criteria that need gradients or activations, as in `tfprune.pruners.one_shot`;
            likewise `batches`, `batch_size`, `loss` and `verbose`.
        latency_batch_size: Batch size for measuring the latency; 1 by default.
        runtime: For a target in latency: "keras", "litert", "onnx", "saved_model" or "torch", the
            runtime of the exported model. Candidates are written and measured as files of that
            format.
        threads: For a target in latency: number of threads of the runtime, or `None` for as many
            as it takes.
        allocation: "sensitivity" prunes each group of filters up to the same loss, measured on
            `data` with this group alone pruned; `None` leaves the allocation to `scope`.
            BatchNormalization gets new statistics from the same data. See
            `tfprune.pruners.SensitivitySearch`.
        uniform: `True` removes the same number of channels from all blocks, and only channels
            that arguments of the model's class count (`intermediate_dim`, for instance), so that
            the result is a plain model of that class. Otherwise blocks may differ: the result has
            the class too, but its file can only be loaded where tfprune is imported.

    Returns:
        A new, plain, uncompiled model, without the optimizer's state.

    Raises:
        TypeError: If `model` is not a Keras 3 model, `round_to` not a whole number, or `targets`
            not a dictionary of numbers.
        ValueError: If the model is not built, its `call` is code, which cannot be followed, its
            patterns do not prune whole filters, or the targets cannot be met; the message gives the
            lowest costs.
        ImportError: If the runtime is not installed.

    Warns:
        UserWarning: If the final measurement misses the target in latency; it gives both numbers.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(6, 3, name="conv")(inputs)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
    >>> schedule = tfprune.ConstantSparsity(0.5, 0)
    >>> pruned = tfprune.prune_low_magnitude(model, schedule, pattern="filter")
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> tfprune.shrink(pruned).get_layer("conv").filters
    3
    >>> tfprune.shrink(model, {"macs": 0.35}).get_layer("conv").filters
    2
    """
    plan = plan_shrink(
        model,
        targets,
        criterion=criterion,
        scope=scope,
        rules=rules,
        round_to=round_to,
        data=data,
        batches=batches,
        batch_size=batch_size,
        loss=loss,
        latency_batch_size=latency_batch_size,
        runtime=runtime,
        threads=threads,
        allocation=allocation,
        uniform=uniform,
        verbose=verbose,
    )
    return plan.apply()
