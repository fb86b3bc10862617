"""`tfprune sparse MODEL -o FILE`."""

from tfprune._base import validation as check
from tfprune._formats.examples import fitting_inputs
from tfprune._formats.keras_file import KerasSession
from tfprune.cli.loading import load_data, load_model
from tfprune.cli.saving import check_output, save_plain
from tfprune.sparse import plan_sparse


def run(args, output):
    check_output(args.output, args.force, ".keras")
    number = check.integer("--batch-size", args.batch_size, 1, "Use for instance 1.")
    model = load_model(args.model, args)
    data = load_data(args, model)
    given = None if data is None else data.train[0][:number]
    x = KerasSession(model).packed(fitting_inputs(model, given, number))
    verbose = 0 if args.json else 1
    plan = plan_sparse(model, x, threads=args.threads, prefer=args.prefer, verbose=verbose)
    done = save_plain(plan.apply(), args.output)
    shown = {**plan.to_dict(), "path": str(done.path), "bytes": done.bytes}
    output.give(shown, plan.table(), str(done))
