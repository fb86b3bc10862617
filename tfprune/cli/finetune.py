"""`tfprune finetune MODEL --data PATH -o FILE`."""

import glob

from tfprune._base import validation as check
from tfprune._reports import prunable_weights
from tfprune._reports.report import sparsity_report
from tfprune._wrapping.mask_set import keep_masks
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import mask_owners
from tfprune.cli.saving import check_output, save_plain
from tfprune.cli.trained import load_and_train
from tfprune.cli.training import check_training
from tfprune.prune import prune_low_magnitude
from tfprune.pruners.search.held_masks import HeldMasks
from tfprune.schedules import ConstantSparsity


def run(args, output):
    check_output(args.output, args.force, ".keras")
    check_training(args)
    trained = load_and_train(args, _with_fixed_masks, output)
    plain = strip_pruning(trained.model)
    report = sparsity_report(plain)
    done = save_plain(plain, args.output)
    result = {
        "path": str(done.path),
        "bytes": done.bytes,
        "sparsity": report.to_dict(),
        "metrics": trained.metrics,
    }
    line = f"{done.path}: {done.bytes:,} bytes"
    output.give(result, report.table(), *trained.lines(), line)


def _with_fixed_masks(model, data):
    """Wraps a model with masks that keep its zeros and never change."""
    plain = strip_pruning(model)
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
    return held, HeldMasks(held)
