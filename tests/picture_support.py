"""What is asked of every picture: each text inside, none over another."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def visible_texts(figure):
    """`[(text, box in pixels)]` of all that is written in a figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = _hidden_tick_labels(figure)
    return [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and id(text) not in hidden
    ]


def _hidden_tick_labels(figure):
    """Labels of ticks beyond the ends of an axis exist, and are not drawn."""
    found = set()
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            slack = 1e-9 * abs(limits[1] - limits[0])
            for tick in axis.get_major_ticks():
                if not min(limits) - slack <= tick.get_loc() <= max(limits) + slack:
                    found |= {id(tick.label1), id(tick.label2)}
    return found


def assert_readable(figure):
    """No text is cut off, none overlaps another."""
    found = visible_texts(figure)
    width, height = figure.bbox.size
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    # Boxes of lines hold room above and below the letters.
    boxes = [box.shrunk(0.98, 0.75) for _, box in found]
    for number, box in enumerate(boxes):
        hit = [found[n][0] for n in range(number) if box.overlaps(boxes[n])]
        assert hit == [], found[number][0]
    return [text for text, _ in found]
