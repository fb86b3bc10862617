"""`tfprune finetune MODEL --data PATH -o FILE`."""

import glob

from tfprune._base import validation as check
from tfprune._reports import prunable_weights
from tfprune._reports.report import sparsity_report
from tfprune._wrapping.mask_set import keep_masks
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners
from tfprune.cli.loading import load_data, load_model
from tfprune.cli.saving import check_output, save_plain
from tfprune.cli.training import (
    both,
    check_labels,
    check_training,
    compile_as,
    in_lines,
    measured,
    set_seed,
    train,
)
from tfprune.prune import prune_low_magnitude
from tfprune.pruners.search.held_masks import HeldMasks
from tfprune.schedules import ConstantSparsity


def run(args, output):
    check_output(args.output, args.force, ".keras")
    check_training(args)
    set_seed(args.seed)
    model = load_model(args.model, args, compile=True)
    held = _with_fixed_masks(strip_pruning(model))
    data = load_data(args, model)
    check_labels(model, data.train[1])
    compile_as(held, model, data, args)
    before = measured(held, data, args)
    callback = HeldMasks(held)
    train(held, callback, data, args, output)
    callback.check()
    after = measured(held, data, args)
    plain = strip_pruning(held)
    report = sparsity_report(plain)
    done = save_plain(plain, args.output)
    result = {
        "path": str(done.path),
        "bytes": done.bytes,
        "sparsity": report.to_dict(),
        "metrics": both(before, after),
    }
    line = f"{done.path}: {done.bytes:,} bytes"
    output.give(result, report.table(), *in_lines(before, after), line)


def _with_fixed_masks(plain):
    """Wraps a plain model with masks that keep its zeros, and never change."""
    found = prunable_weights.find(plain)
    zeros = {weight.path for weight in found if not weight.kept.all()}
    if not zeros:
        raise ValueError(
            check.message(
                "a pruned model, with zeros among its weights",
                f"'{plain.name}' without any",
                "Prune it first: tfprune prune.",
            )
        )
    # Named by a rule, layers that are exempt by default have masks too.
    paths = dict.fromkeys(path for path, _ in prunable_weights.layers_by_path(plain))
    rules = [Rule(glob.escape(path)) for path in paths if path in zeros]
    held = prune_low_magnitude(plain, ConstantSparsity.one_shot(0.0), rules=rules)
    owners = mask_owners(held)
    for owner in owners:
        for weight in owner.pruned_weights:
            weight.set_mask(weight.array != 0)
    keep_masks(owners)
    return held
