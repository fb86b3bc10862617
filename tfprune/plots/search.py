"""Plots the candidates of a search, and the share pruned from each layer."""

from tfprune.plots import drawing


def draw(result, path=None):
    """Draws a `SearchResult`: see its `plot`."""
    names = list(result.shares)
    figure = drawing.new_figure(8, 2.6 + 0.18 * len(names))
    left, right = figure.subplots(1, 2)
    costs = [_share(result, trial) for trial in result.trials]
    values = [trial.metrics[result.metric] for trial in result.trials]
    left.scatter(costs, values, s=14, color=drawing.COLOURS[0], alpha=0.7)
    if result.best is not None:
        left.scatter(
            [_share(result, result.best)],
            [result.best.metrics[result.metric]],
            s=50,
            marker="*",
            color=drawing.COLOURS[1],
            zorder=3,
        )
    name = next(iter(result.budget))
    left.set_xlabel("sparsity" if name == "sparsity" else f"{name} left", fontsize=9)
    left.set_ylabel(result.metric.replace("_", " "), fontsize=9)
    left.set_title("candidates; the star is the one chosen", fontsize=8, color="#505050")
    left.grid(alpha=0.3)
    drawing.percent_axis(left.xaxis)
    drawing.open_frame(left)
    right.barh(range(len(names)), list(result.shares.values()), color=drawing.COLOURS[0])
    drawing.name_rows(right, names)
    right.set_xlim(0, 1)
    right.set_xlabel("pruned", fontsize=9)
    drawing.percent_axis(right.xaxis)
    drawing.open_frame(right)
    figure.suptitle(f"{result.method}: {len(result.trials)} evaluations", fontsize=10)
    return drawing.finished(figure, path)


def _share(result, trial):
    name = next(iter(result.budget))
    return trial.costs[name] / (1 if name == "sparsity" else result.dense[name])
