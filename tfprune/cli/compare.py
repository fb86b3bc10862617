"""`tfprune compare BEFORE AFTER`."""

from pathlib import Path

import keras

from tfprune._analysis.comparison import compare
from tfprune._analysis.comparison.files import BY_DEFAULT, FORMATS
from tfprune._analysis.comparison.tables import comparison_tables, shown
from tfprune._base.files import finished_at_once
from tfprune.cli.loading import add_data, add_model, add_trust, load_data, load_model
from tfprune.cli.saving import check_output
from tfprune.cli.training import compile_for


def add(commands, shared):
    parser = commands.add_parser(
        "compare",
        parents=[shared],
        help="two models side by side: layers, files, latency, accuracy",
    )
    add_model(parser, "before")
    add_model(parser, "after")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown")
    parser.add_argument("--force", action="store_true", help="replace these files if they exist")
    parser.add_argument(
        "--formats",
        nargs="*",
        choices=tuple(FORMATS),
        default=list(BY_DEFAULT),
        metavar="FORMAT",
        help="files to measure: " + ", ".join(FORMATS),
    )
    parser.add_argument("--no-latency", action="store_true", help="do not measure seconds")
    parser.add_argument("--batch-size", type=int, default=1, help="for the latency (1)")
    parser.add_argument("--runs", type=int, default=30, help="for the latency (30)")
    add_data(parser, "to measure accuracy on: an .npz file, or a folder of images")
    parser.add_argument("--loss", help="where no model says its own: a Keras loss")
    add_trust(parser)
    parser.set_defaults(run=run)


def run(args, output):
    for path in (args.html, args.markdown):
        if path is not None:
            check_output(path, args.force)
    before, after = (load_model(path, args, compile=True) for path in (args.before, args.after))
    data = load_data(args, before)
    if data is not None and not (before.compiled or after.compiled):
        compile_for(before, data, args.loss, keras.optimizers.SGD())
    found = compare(
        before,
        after,
        None if data is None else data.test,
        formats=args.formats,
        latency=not args.no_latency,
        batch_size=args.batch_size,
        runs=args.runs,
    )
    if args.html is not None:
        found.html(args.html)
    if args.markdown is not None:
        with finished_at_once(args.markdown) as unfinished:
            unfinished.write_text(found.markdown(), encoding="utf-8")
    output.give(found.to_dict(), *shown(comparison_tables(found)))
