"""Pictures of groups: every bar against the model, every label where it can be read."""

import itertools
import sys

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from structural_graphs import BUILDERS
from structural_support import choice, randomize, zeroed

import tfprune

pytestmark = pytest.mark.usefixtures("fresh")


def plan_removal(model, share=0.5):
    for group, units in choice(tfprune.dependency_groups(model), share):
        zeroed(model, group, units, reads=False)
    return tfprune.plan_shrink(model)


def deep(number):
    """Layers, three of four coupled with others, with long names and without channels to lose."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(64, 1, name="stem")(inputs)
    for block in range((number - 2) // 2):
        name = f"stage_of_the_network_{block}/block_with_a_long_name_{block}"
        y = layers.Conv2D(7, 1, name=f"{name}_one".replace("/", "_"))(x)
        x = layers.Add()([x, layers.Conv2D(64, 1, name=f"{name}_two".replace("/", "_"))(y)])
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(60, activation="softmax", name="last")(x)
    return randomize(keras.Model(inputs, outputs))


def bars(figure):
    """`{name: [(left, width, is hatched, colour)]}` of what is drawn."""
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    found = {name: [] for name in names}
    for bar in axes.patches:
        place = round(bar.get_y() + bar.get_height() / 2)
        colour = tuple(bar.get_facecolor()[:3])
        found[names[place]].append((bar.get_x(), bar.get_width(), bool(bar.get_hatch()), colour))
    return found


@pytest.mark.parametrize("name", ["residual", "dense_blocks", "u_net", "nested", "unknown_layer"])
def test_bars_are_the_channels_of_the_plan(name):
    model = randomize(BUILDERS[name]())
    plan = plan_removal(model)
    drawn = bars(tfprune.plot_groups(plan))
    widths = {path: pair for group in plan.groups for path, pair in group.widths.items()}
    assert drawn.keys() == widths.keys()
    for path, (before, after) in widths.items():
        kept, *gone = drawn[path]
        assert kept[:3] == (0, after, False)
        expected = [(after, before - after, True)] if before > after else []
        assert [bar[:3] for bar in gone] == expected
    # One colour for a group, grey for those alone, another colour for the next group.
    colours = [{drawn[path][0][3] for path in group.layers} for group in plan.groups]
    assert all(len(several) == 1 for several in colours)
    coupled = [c for c, g in zip(colours, plan.groups, strict=True) if len(g.layers) > 1]
    alone = [c for c, g in zip(colours, plan.groups, strict=True) if len(g.layers) == 1]
    assert bool(coupled) == (name not in ("u_net", "unknown_layer"))
    assert all(one != other for one, other in itertools.pairwise(coupled))
    assert len({tuple(c) for c in alone}) == 1 and alone[0] not in coupled


def test_bars_of_a_model_are_whole():
    model = randomize(BUILDERS["residual"]())
    drawn = bars(tfprune.plot_groups(model))
    for path, (bar, *others) in drawn.items():
        layer = model.get_layer(path)
        assert bar[:3] == (0, layer.kernel.shape[-1], False) and others == []
    assert len(drawn) == 6


def test_what_stays_whole_says_why_once_a_group():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same", name="b")(x)])
    model = keras.Model(inputs, layers.UnitNormalization(name="barrier")(x))
    texts = [text.get_text() for text in tfprune.plot_groups(model).axes[0].texts]
    assert texts[0].startswith("6   all kept: 'barrier', a UnitNormal") and texts[1] == "6"
    assert len(texts[0]) < 70


@pytest.mark.parametrize("number", [4, 20, 60])
def test_labels_do_not_overlap_and_nothing_is_cut_off(number):
    plan = plan_removal(deep(number))
    figure = tfprune.plot_groups(plan)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    (axes,) = figure.axes
    (legend,) = figure.legends
    texts = [
        *axes.texts,
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
        axes.xaxis.label,
        *legend.get_texts(),
        figure._suptitle,
    ]
    texts = [text for text in texts if text.get_text() and text.get_visible()]
    assert len(texts) >= 2 * len(axes.get_yticks()) + 5
    boxes = [text.get_window_extent(renderer) for text in texts]
    width, height = figure.bbox.size
    for text, box in zip(texts, boxes, strict=True):
        inside = min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, text.get_text()
    for number, box in enumerate(boxes):
        # Boxes of lines hold room above and below the letters.
        met = [t.get_text() for t, b in zip(texts, boxes, strict=True) if b is not box]
        shrunk = box.shrunk(0.98, 0.75)
        others = [b for b in boxes if b is not box]
        hit = [t for t, b in zip(met, others, strict=True) if shrunk.overlaps(b.shrunk(0.98, 0.75))]
        assert hit == [], texts[number].get_text()
    # Bars do not cross numbers: each number is to the right of its bar.
    ends = [max(left + w for left, w, *_ in found) for found in bars(figure).values()]
    for text, end in zip(axes.texts, ends, strict=True):
        assert text.get_window_extent(renderer).x0 > axes.transData.transform((end, 0))[0]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures_are_saved(tmp_path, ending):
    path = tmp_path / f"groups.{ending}"
    tfprune.plot_groups(plan_removal(randomize(BUILDERS["residual"]())), path)
    assert path.stat().st_size > 5000
    if ending == "png":
        pixels = imread(path)[..., :3]
        # Blue of the coupled group, and white.
        assert (np.abs(pixels - [0, 0x72 / 255, 0xB2 / 255]).max(axis=-1) < 0.01).mean() > 0.05
        assert (pixels == 1).all(axis=-1).mean() > 0.3


def test_bad_input_and_no_matplotlib(monkeypatch):
    with pytest.raises(TypeError, match="Keras 3"):
        tfprune.plot_groups(3)
    with pytest.raises(ValueError, match="layers that make channels"):
        tfprune.plot_groups(keras.Sequential([keras.Input((3,)), layers.ReLU()]))
    model = BUILDERS["residual"]()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"tfprune\[plots\]\""):
        tfprune.plot_groups(model)
