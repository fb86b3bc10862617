"""Lottery tickets: exact rounds, rewinding and resuming bit for bit, controls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_support import SLOW_ON_TENSORFLOW

import tfprune
from tfprune import masks as kernel
from tfprune._wrapping.wrapper import mask_owners

BACKEND = keras.backend.backend()
ROOT = Path(tfprune.__file__).parents[1]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(48, 6)).astype("float32")
Y = (X @ RANDOM.normal(size=(6, 2))).astype("float32")


def small_model(seed=1):
    """Dropout and BatchNormalization have states."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, activation="relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(10, activation="relu", name="second"),
            layers.Dense(2, name="last"),
        ]
    )


def array(variable):
    return np.array(ops.convert_to_numpy(variable))


def pruned(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def masks_of(model):
    return [array(weight.mask) for weight in pruned(model)]


def values(model):
    """All weights without the masks."""
    return [np.array(value) for value in tfprune.strip_pruning(model).get_weights()]


def assert_equal(these, those):
    assert len(these) == len(those)
    for one, other in zip(these, those, strict=True):
        np.testing.assert_array_equal(one, other)


class Trainer:
    """Trains two epochs of six steps, and notes what it was given and what came out."""

    def __init__(self, fails_in=None, watch=None):
        self.fails_in = fails_in
        self.watch = watch
        self.seen: list = []

    def __call__(self, model, callback):
        assert not model.compiled and all(o.pruning_step == 0 for o in mask_owners(model))
        seen = {"start": values(model), "masks": masks_of(model), "batches": 0}
        self.seen.append(seen)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 12))
        model.compile(optimizer, "mse", metrics=["mae"])

        class Watch(keras.callbacks.Callback):
            def on_train_batch_end(watch, batch, logs=None):
                seen["batches"] += 1
                if seen["batches"] == self.watch:
                    # On JAX, asking for the model brings its weights up to date.
                    seen["early"] = values(watch.model)
                if len(self.seen) - 1 == self.fails_in and seen["batches"] == 7:
                    raise KeyboardInterrupt

        history = model.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[Watch(), callback])
        assert int(array(optimizer.iterations)) == seen["batches"] == 12
        seen["trained"] = values(model)
        return history


def kernels_of(model):
    return [value for value in values(model) if value.ndim == 2]


def counts(model):
    """`(units, kept units)` over all masks together."""
    found = [
        w.method.pattern.collapse(array(w.mask), w.axes.resolve(len(w.mask.shape)))
        for w in pruned(model)
    ]
    return sum(f.size for f in found), sum(np.count_nonzero(f) for f in found)


# -- Rounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        {"scope": "global"},
        pytest.param({"scope": "erdos_renyi"}, marks=SLOW_ON_TENSORFLOW),
        {
            "pattern": tfprune.Filter(coupled=False),
            "scope": "uniform",
            "rules": [tfprune.Rule("last", prune=False)],
        },
        pytest.param({}, marks=SLOW_ON_TENSORFLOW),
    ],
    ids=["global", "erdos_renyi", "filter", "local"],
)
def test_rounds(parts):
    model, trainer = small_model(), Trainer()
    initial = values(model)
    tickets = tfprune.LotteryTicket(model, 0.8, rounds=3, **parts).run(trainer)
    assert len(trainer.seen) == len(tickets.rounds) == 4
    before = None
    for number, (seen, one) in enumerate(zip(trainer.seen, tickets.rounds, strict=True)):
        assert one.round == number
        assert one.sparsity == pytest.approx(1 - (1 - 0.8) ** (number / 3), abs=1e-12)
        ticket = tickets.ticket(number)
        if parts:
            units, kept = counts(ticket)
            assert kept == kernel.kept_count(units, one.sparsity)
        else:
            for mask in seen["masks"]:
                assert mask.sum() == kernel.kept_count(mask.size, one.sparsity)
        zeros = sum(int((~mask).sum()) for mask in seen["masks"])
        assert (one.zeros, one.parameters) == (zeros, sum(mask.size for mask in seen["masks"]))
        # Rewound bit for bit, and masked.
        assert_equal(seen["start"], masked(model, initial, ticket))
        assert_equal(values(ticket), seen["start"])
        assert_equal(masks_of(ticket), seen["masks"])
        assert_equal(values(tickets.ticket(number, trained=True)), seen["trained"])
        assert_equal(tickets.stripped(number).get_weights(), seen["trained"])
        if before is not None:
            for old, new in zip(before, seen["masks"], strict=True):
                assert not (new & ~old).any()
        before = seen["masks"]
        assert set(one.metrics) >= {"loss", "mae"}
    assert_equal(values(model), initial)
    assert not model.compiled


def masked(model, weights, ticket):
    """Weights in the order of a plain model, those of a ticket's masks put to zero by NumPy."""
    found = {w.name: array(w.mask) for w in pruned(ticket)}
    paths = [path_of(variable) for variable in model.weights]
    return [
        np.where(found[path], value, np.float32(0)) if path in found else value
        for path, value in zip(paths, weights, strict=True)
    ]


def path_of(variable):
    return "/".join(variable.path.split("/")[-2:])


def test_masks_come_from_the_weights_that_training_ended_with():
    trainer = Trainer()
    tickets = tfprune.LotteryTicket(small_model(), 0.9, rounds=2, scope="global").run(trainer)
    for number in (1, 2):
        last = trainer.seen[number - 1]
        kernels = [value for value in last["trained"] if value.ndim == 2]
        scores = [
            np.where(mask, np.abs(value), -1)
            for value, mask in zip(kernels, last["masks"], strict=True)
        ]
        whole = np.concatenate([score.ravel() for score in scores])
        kept = kernel.kept_count(whole.size, tickets.rounds[number].sparsity)
        threshold = np.sort(whole)[-kept]
        assert_equal(trainer.seen[number]["masks"], [score >= threshold for score in scores])


@pytest.mark.parametrize(("unit", "number", "batch"), [("step", 5, 5), ("epoch", 1, 6)])
def test_rewinds_to_a_step_or_an_epoch(unit, number, batch):
    model, trainer = small_model(), Trainer(watch=batch)
    lottery = tfprune.LotteryTicket(model, 0.7, rounds=2, rewind_to=number, rewind_unit=unit)
    tickets = lottery.run(trainer)
    initial, early = values(model), trainer.seen[0]["early"]
    assert_equal(trainer.seen[0]["start"], initial)
    assert not np.array_equal(initial[0], early[0])
    for round in (1, 2):
        assert_equal(trainer.seen[round]["start"], masked(model, early, tickets.ticket(round)))
        # BatchNormalization's moving averages are rewound too.
        assert_equal(trainer.seen[round]["start"][4:6], early[4:6])


def test_criteria_and_rules_go_on_as_in_prune_low_magnitude():
    @keras.saving.register_keras_serializable(package="test_lottery")
    class Largest(tfprune.Criterion):
        def __call__(self, weight):
            return -abs(weight)

        def get_config(self):
            return {}

    trainer = Trainer()
    rules = [tfprune.Rule("first", prune=False)]
    lottery = tfprune.LotteryTicket(small_model(), 0.5, 1, criterion=Largest(), rules=rules)
    lottery.run(trainer)
    trained = [value for value in trainer.seen[0]["trained"] if value.ndim == 2][1:]
    assert len(trainer.seen[1]["masks"]) == 2
    for mask, value in zip(trainer.seen[1]["masks"], trained, strict=True):
        assert mask.sum() == mask.size // 2
        assert np.abs(value[mask]).max() <= np.abs(value[~mask]).min()


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(16, "relu"), layers.Dense(2)

    def call(self, inputs):
        return self.last(self.first(inputs))


def test_a_subclassed_model():
    model, trainer = Subclassed(), Trainer(watch=2)
    model(X[:1])
    tickets = tfprune.LotteryTicket(model, 0.8, 2, scope="global", rewind_to=2).run(trainer)
    units, kept = counts(tickets.ticket())
    assert kept == kernel.kept_count(units, 0.8)
    for start, value in zip(trainer.seen[2]["start"], trainer.seen[0]["early"], strict=True):
        np.testing.assert_array_equal(start, np.where(start != 0, value, 0))
    assert isinstance(tickets.stripped(), Subclassed)
    tfprune.LotteryTicket(model, 0.8, 1).run(Trainer(), control="random_reinit")


# -- A loop of one's own ---------------------------------------------------------------------------


def own_loop(model, callback):
    """Five steps of gradient descent on the whole of the data."""
    optimizer = keras.optimizers.SGD(0.05)
    optimizer.build(model.trainable_variables)
    if BACKEND == "jax":
        return jax_loop(model, callback, optimizer)
    for _ in range(5):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = keras.losses.mean_squared_error(Y, model(X, training=True))
                loss = ops.mean(loss)
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        else:
            model.zero_grad()
            loss = ops.mean(keras.losses.mean_squared_error(Y, model(X, training=True)))
            loss.backward()
            gradients = [v.value.grad for v in model.trainable_variables]
        if BACKEND == "torch":
            import torch

            with torch.no_grad():
                optimizer.apply(gradients, model.trainable_variables)
        else:
            optimizer.apply(gradients, model.trainable_variables)
        callback.step()
    return {"loss": loss}


def jax_loop(model, callback, optimizer):
    import jax

    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)

    def loss_of(trainable, others):
        predicted, others = model.stateless_call(trainable, others, X, training=True)
        return keras.losses.mean_squared_error(Y, predicted).mean(), others

    def write():
        for group, state in zip(groups, states, strict=True):
            for variable, value in zip(group, state, strict=True):
                variable.assign(value)

    states = [[variable.value for variable in group] for group in groups]
    for _ in range(5):
        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(*states[:2])
        trainable, slots = optimizer.stateless_apply(states[2], gradients, states[0])
        states = [callback.project(trainable, others), others, slots]
        if callback.step(sync=write):
            states = [[variable.value for variable in group] for group in groups]
    write()
    return {"loss": loss}


def test_a_loop_of_ones_own():
    model, starts = small_model(), []

    def train(model, callback):
        starts.append(values(model))
        return own_loop(model, callback)

    lottery = tfprune.LotteryTicket(model, 0.6, 2, scope="global", rewind_to=5)
    tickets = lottery.run(train)
    dense = values(tickets.ticket(0, trained=True))
    for number in (1, 2):
        assert_equal(starts[number], masked(model, dense, tickets.ticket(number)))
        trained = values(tickets.ticket(number, trained=True))
        assert_equal(trained, masked(model, trained, tickets.ticket(number)))
        assert not np.array_equal(trained[0], starts[number][0])
    assert counts(tickets.ticket())[1] == kernel.kept_count(counts(tickets.ticket())[0], 0.6)


# -- Resuming --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run with both controls."""
    folder = tmp_path_factory.mktemp("whole")
    lottery = tfprune.LotteryTicket(small_model(), 0.8, 2, scope="global", rewind_to=3)
    return {kind: lottery.run(Trainer(), folder, kind) for kind in (None, *KINDS)}


KINDS = ("random_masks", "random_reinit")


def assert_same_tickets(these, those):
    assert these.rounds == those.rounds
    for round in range(len(these.rounds)):
        for trained in (False, True):
            one, other = these.ticket(round, trained), those.ticket(round, trained)
            assert_equal(values(one), values(other))
            assert_equal(masks_of(one), masks_of(other))


@pytest.mark.parametrize(
    "fails_in", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2))]
)
def test_resumes_bit_for_bit(whole, tmp_path, fails_in):
    first = tfprune.LotteryTicket(small_model(), 0.8, 2, scope="global", rewind_to=3)
    with pytest.raises(KeyboardInterrupt):
        first.run(Trainer(fails_in), tmp_path)
    # Another program run: other initial weights, other random states.
    second = tfprune.LotteryTicket(small_model(99), 0.8, 2, scope="global", rewind_to=3)
    trainer = Trainer()
    tickets = second.run(trainer, tmp_path)
    assert len(trainer.seen) == 3 - fails_in
    assert_same_tickets(tickets, whole[None])
    # A run that is done is read, not trained.
    third = tfprune.LotteryTicket(small_model(7), 0.8, 2, scope="global", rewind_to=3)
    assert_same_tickets(third.run(must_not_train, tmp_path), whole[None])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_controls_resume_too(whole, tmp_path, kind):
    first = tfprune.LotteryTicket(small_model(), 0.8, 2, scope="global", rewind_to=3)
    first.run(Trainer(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.run(Trainer(1), tmp_path, kind)
    second = tfprune.LotteryTicket(small_model(99), 0.8, 2, scope="global", rewind_to=3)
    trainer = Trainer()
    assert_same_tickets(second.run(trainer, tmp_path, kind), whole[kind])
    assert len(trainer.seen) == 1


def must_not_train(model, callback):
    raise AssertionError("trained again")


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    lottery = tfprune.LotteryTicket(small_model(), 0.5, 1)
    replace = os.replace

    def killed(source, target):
        if str(target).endswith("round_00.npz"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        lottery.run(Trainer(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "start.npz"]
    monkeypatch.setattr(os, "replace", replace)
    trainer = Trainer()
    lottery.run(trainer, tmp_path)
    assert len(trainer.seen) == 2


@pytest.mark.slow
def test_a_killed_process(tmp_path):
    """Nothing is cleaned up: the process is gone at once, at the start and again in round 2."""
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    printed = [
        subprocess.run(
            [sys.executable, str(script), str(tmp_path), str(kill)],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=False,
        )
        for kill in (1, 30, 0)
    ]
    assert [done.returncode for done in printed] == [9, 9, 0], printed[2].stderr[-2000:]
    assert [done.stdout.count("round of tickets") for done in printed] == [1, 3, 2]
    resumed, whole = printed[2].stdout.splitlines()[-2:]
    assert resumed.split()[0] == "tickets" and whole.split()[0] == "whole"
    assert resumed.split()[1] == whole.split()[1]


KILLED = """
import hashlib, os, sys
import keras, numpy as np, tfprune

folder, kill = sys.argv[1], int(sys.argv[2])
random = np.random.default_rng(0)
x, y = random.normal(size=(48, 6)), random.normal(size=(48, 2))
batches = 0


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        global batches
        batches += 1
        if batches == kill:
            os._exit(9)


def digest(name):
    path = os.path.join(folder, name)
    if not os.path.exists(os.path.join(path, "start.npz")):
        # Only the first time: what is resumed comes from the folder.
        keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(9, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((6,)), *layers])

    def train(model, callback):
        print("round of", name, flush=True)
        model.compile("adam", "mse")
        callbacks = [callback, Kill()]
        return model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)

    tickets = tfprune.LotteryTicket(model, 0.8, 3, rewind_to=4, scope="global").run(train, path)
    found = hashlib.sha256()
    for number in range(4):
        for value in tickets.stripped(number).get_weights():
            found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


names = ["tickets"] if kill else ["tickets", "whole"]
print(*(f"{name} {digest(name)}" for name in names), sep=chr(10))
"""


@pytest.mark.slow
def test_in_memory_and_in_a_folder_alike(tmp_path):
    lottery = tfprune.LotteryTicket(small_model(), 0.6, 2)
    assert_same_tickets(lottery.run(Trainer()), lottery.run(Trainer(), tmp_path / "new" / "one"))


def test_bfloat16_weights_come_back(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, dtype="bfloat16")])
    lottery = tfprune.LotteryTicket(model, 0.5, 1)
    tickets = lottery.run(Trainer(), tmp_path)
    assert_equal(values(tickets.ticket(0)), values(model))
    assert_same_tickets(tickets, lottery.run(must_not_train, tmp_path))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sparsity": 0.7}, "sparsity=0.7.*whose tickets have sparsity=0.8"),
        ({"rounds": 3}, "rounds=3.*rounds=2"),
        ({"rewind_to": 2}, "rewind_to=2.*rewind_to=3"),
        ({"scope": "local"}, "pruned=.*pruned="),
        ({"seed": 1}, "seed=1.*seed=0"),
        ({"model": "other"}, "weights=.*weights="),
    ],
)
def test_a_folder_of_another_configuration_is_refused(whole, change, line):
    folder = whole[None]._store._folder
    arguments = {"sparsity": 0.8, "rounds": 2, "scope": "global", "rewind_to": 3, **change}
    model = small_model()
    if arguments.pop("model", None):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=f"Expected `path` to hold tickets of this.*{line}"):
        tfprune.LotteryTicket(model, **arguments).run(must_not_train, folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="Expected `path` to be an empty folder"):
        tfprune.LotteryTicket(small_model(), 0.5, 1).run(must_not_train, tmp_path)
    with pytest.raises(ValueError, match="Expected `path` to be an empty folder"):
        tfprune.LotteryTicket(small_model(), 0.5, 1).run(must_not_train, tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# -- Controls --------------------------------------------------------------------------------------


def test_random_masks(whole):
    tickets, control = whole[None], whole["random_masks"]
    assert control.control == "random_masks"
    for round in range(1, 3):
        ticket, other = tickets.ticket(round), control.ticket(round)
        for mask, random in zip(masks_of(ticket), masks_of(other), strict=True):
            assert mask.sum() == random.sum()
            assert not np.array_equal(mask, random)
        # The same weights: where both masks keep one, it is the same.
        for one, two in zip(values(ticket), values(other), strict=True):
            both = (one != 0) & (two != 0)
            np.testing.assert_array_equal(one[both], two[both])
        for value, mask in zip(kernels_of(other), masks_of(other), strict=True):
            np.testing.assert_array_equal(value != 0, mask)
    assert_equal(values(control.ticket(0, True)), values(tickets.ticket(0, True)))


def test_random_reinit(whole):
    tickets, control = whole[None], whole["random_reinit"]
    starts = [values(control.ticket(round)) for round in range(1, 3)]
    for round, start in enumerate(starts, start=1):
        ticket = tickets.ticket(round)
        assert_equal(masks_of(ticket), masks_of(control.ticket(round)))
        kernels = [value for value in start if value.ndim == 2]
        for mask, new, old in zip(masks_of(ticket), kernels, kernels_of(ticket), strict=True):
            assert not new[~mask].any() and (new[mask] != old[mask]).all()
            # GlorotUniform's range.
            limit = (6 / sum(mask.shape)) ** 0.5
            assert np.abs(new).max() <= limit * (1 + 1e-6)
        # Biases and moving averages are as initializers make them.
        for value in (start[1], start[4]):
            assert not value.any()
    assert not np.array_equal(starts[0][0], starts[1][0])


def test_reinit_keeps_what_no_initializer_makes():
    """Statistics of the data and frozen layers are no luck of the draw."""
    model = keras.Sequential(
        [keras.Input((6,)), layers.Normalization(), layers.Dense(9), layers.Dense(2)]
    )
    model.layers[0].adapt(X)
    model.layers[1].trainable = False
    before = values(model)
    control = tfprune.LotteryTicket(model, 0.5, 1).run(Trainer(), control="random_reinit")
    found = control.ticket(1)
    expected = masked(model, before, found)
    assert_equal(values(found)[:5], expected[:5])
    assert not np.array_equal(values(found)[5], expected[5])
    np.testing.assert_allclose(
        found.layers[0](X), tfprune.strip_pruning(model).layers[0](X), rtol=1e-6
    )


# -- Reports ---------------------------------------------------------------------------------------


def test_table(whole):
    text = str(whole["random_masks"])
    assert "Lottery tickets, random_masks" in text
    for one in whole["random_masks"].rounds:
        assert f"{one.zeros / one.parameters:.2%}" in text
        assert f"{one.metrics['mae']:.4f}" in text
    assert whole[None].rounds[-1].zeros == 276 - kernel.kept_count(276, 0.8)


def test_plot(whole, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    figure = whole[None].plot("mae", whole["random_masks"], whole["random_reinit"])
    (ax,) = figure.axes
    for line, tickets in zip(ax.lines, whole.values(), strict=False):
        density, value = line.get_data()
        rounds = tickets.rounds
        np.testing.assert_allclose(density, [1 - one.zeros / one.parameters for one in rounds])
        np.testing.assert_allclose(value, [one.metrics["mae"] for one in rounds])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["lottery ticket", "random masks", "random reinit"]
    figure.canvas.draw()
    assert ax.get_xticklabels()[0].get_text() == "0.0%"
    assert whole[None].plot("mae", path=tmp_path / "rounds.png", ax=ax) is figure
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="Expected `metric` to be one of 'loss', 'mae'"):
        whole[None].plot("beauty")


def test_config_is_plain_text(whole):
    config = json.loads((whole[None]._store._folder / "config.json").read_text())
    assert (config["sparsity"], config["rounds"], config["rewind_to"]) == (0.8, 2, 3)


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ({"sparsity": 0}, ValueError, "Expected `sparsity` above 0. Received: sparsity=0"),
        ({"sparsity": 90}, ValueError, r"Expected `sparsity`.*did you mean 0\.9"),
        ({"rounds": 0}, ValueError, "Expected `rounds` to be at least 1"),
        ({"rounds": 2.5}, TypeError, "Expected `rounds` to be a whole number"),
        ({"rewind_to": -1}, ValueError, "Expected `rewind_to` to be at least 0"),
        ({"rewind_unit": "batch"}, ValueError, "Expected `rewind_unit` to be one of"),
        ({"seed": "a"}, TypeError, "Expected `seed`"),
        ({"pattern": "n_of_m", "sparsity": 0.5}, ValueError, r"any sparsity.*NOfM.*first/kernel"),
        ({"scope": "world"}, ValueError, "Expected `scope` to be one of"),
        ({"model": layers.Dense(3)}, TypeError, "Expected a whole model.*a Dense"),
        ({"model": 3}, TypeError, "Expected a Keras 3 layer or model"),
        ({"model": keras.Sequential([layers.Dense(2)])}, ValueError, "Expected a built model"),
        (
            {"rules": [tfprune.Rule("first", schedule=tfprune.ConstantSparsity(0.5, 0))]},
            ValueError,
            "Expected rules without a schedule.*match='first'",
        ),
        ({"rules": 5}, TypeError, "Expected `rules`"),
    ],
)
def test_bad_arguments(arguments, error, line):
    arguments = {"model": small_model(), "sparsity": 0.9, "rounds": 2, **arguments}
    with pytest.raises(error, match=line):
        tfprune.LotteryTicket(**arguments)


def test_a_wrapped_model_is_refused():
    model = tfprune.prune_low_magnitude(small_model())
    with pytest.raises(ValueError, match="Expected a layer without pruning wrappers"):
        tfprune.LotteryTicket(model, 0.9, 2)


def lottery(**more):
    return tfprune.LotteryTicket(small_model(), 0.5, 1, **more)


def test_bad_runs():
    with pytest.raises(TypeError, match="Expected `train` to be a function"):
        lottery().run(None)
    with pytest.raises(ValueError, match="Expected `control` to be one of 'random_masks'"):
        lottery().run(Trainer(), control="nothing")
    with pytest.raises(ValueError, match="Expected `round` from 0 to 1"):
        lottery().run(Trainer()).ticket(2)


def test_training_without_the_callback_is_refused():
    with pytest.raises(ValueError, match="Expected `train` to use the callback"):
        lottery().run(lambda model, callback: None)


def test_training_that_ends_before_the_rewinding_point_is_refused():
    with pytest.raises(ValueError, match=r"training to reach step 13.*12 steps"):
        lottery(rewind_to=13).run(Trainer())
    with pytest.raises(ValueError, match=r"training to reach epoch 3.*2 epochs"):
        lottery(rewind_to=3, rewind_unit="epoch").run(Trainer())


def test_an_optimizer_that_has_trained_is_refused():
    optimizer = keras.optimizers.SGD(0.1)
    other = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    other.compile(optimizer, "mse")
    other.fit(X, Y, verbose=0)

    def train(model, callback):
        model.optimizer = optimizer
        callback.set_model(model)

    with pytest.raises(ValueError, match=r"an optimizer that has not trained yet.*2 batches"):
        lottery().run(train)


@pytest.mark.parametrize("result", [3, "good", {"loss": "low"}, {"loss": [1, 2]}])
def test_what_training_returns_is_checked(result):
    def train(model, callback):
        Trainer()(model, callback)
        return result

    with pytest.raises(TypeError, match="Expected `train` to return a dictionary of numbers"):
        lottery().run(train)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch runs one step in one execution")
def test_a_step_inside_of_one_execution_is_refused():
    def train(model, callback):
        model.compile("sgd", "mse", steps_per_execution=2)
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[callback])

    with pytest.raises(ValueError, match="steps_per_execution"):
        lottery(rewind_to=3).run(train)
    assert lottery(rewind_to=4).run(train).rounds[-1].zeros


def test_the_users_model_is_untouched():
    model = small_model()
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    before = [array(v) for v in (*model.variables, *model.optimizer.variables)]
    tfprune.LotteryTicket(model, 0.5, 1).run(Trainer(), control="random_reinit")
    assert_equal(before, [array(v) for v in (*model.variables, *model.optimizer.variables)])
