"""The command line, as a user types it: on files, with their errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

import tfprune
from tfprune.cli import main
from tfprune.cli.choices import COMMANDS
from tfprune.cli.interrupts import INTERRUPTS

pytestmark = pytest.mark.usefixtures("fresh")

ROOT = Path(tfprune.__file__).parents[1]
ENTRIES = [[str(ROOT / "tfprune_command.py")], ["-m", "tfprune"]]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A trained model, its data as a file and as images, and broken files."""
    folder = tmp_path_factory.mktemp("files")
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
    np.savez(folder / "data.npz", x_train=x[:900], y_train=y[:900], x_test=x[900:], y_test=y[900:])
    np.savez(folder / "names.npz", images=x, labels=y)
    np.savez(folder / "shapes.npz", x=x[:, :7], y=y)
    np.savez(folder / "lengths.npz", x=x, y=y[:-1])
    np.savez(folder / "classes.npz", x=x, y=y + 1)
    np.save(folder / "array.npy", x)
    np.savez(folder / "objects.npz", x=np.array([{}], object), y=y)
    for number in range(120):
        place = folder / "images" / f"digit_{y[number]}"
        place.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(place / f"{number}.png", 255 * x[number], scale=False)
    (folder / "empty").mkdir()
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=4, verbose=0)
    model.save(folder / "dense.keras")
    plain = tfprune.strip_pruning(model)
    plain.save(folder / "plain.keras")
    plain.export(str(folder / "saved_model"), verbose=False)
    (folder / "damaged.keras").write_bytes((folder / "dense.keras").read_bytes()[:5000])
    (folder / "text.keras").write_text("no model")
    (folder / "model.txt").write_text("no model")
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda t: 2 * t), layers.Dense(2)]).save(
        folder / "code.keras"
    )
    (folder / "users_layers.py").write_text(OWN_LAYER)
    done = subprocess.run(
        [sys.executable, "-c", "import users_layers as u; u.make('own.keras')"],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


OWN_LAYER = """
import keras

@keras.saving.register_keras_serializable("users")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def make(path):
    keras.Sequential([keras.Input((4,)), Twice(), keras.layers.Dense(2)]).save(path)
"""


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.Conv2D(32, 3, activation="relu", name="wide"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="last"),
        ],
        name="digits",
    )


@pytest.fixture
def command(capsys):
    """Runs a command; returns its exit code, what it printed, and its messages."""

    def run(*words):
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def loaded(path):
    return keras.saving.load_model(path)


# -- Commands --------------------------------------------------------------------------------------


def test_report(setup, command, tmp_path):
    code, out, err = command("report", setup / "dense.keras", "-o", tmp_path / "bars.png")
    assert (code, err) == (0, "")
    assert "conv" in out and "prunable weights" in out
    cost = tfprune.model_cost(loaded(setup / "plain.keras"))
    assert out.count(f" {cost.parameters:,} ") == 2 and f"{cost.macs:,}" in out
    assert (tmp_path / "bars.png").stat().st_size > 5000
    code, out, _ = command("report", setup / "dense.keras", "--json")
    data = json.loads(out)
    assert data["cost"]["macs"] == cost.macs
    assert data["bytes"] == (setup / "dense.keras").stat().st_size
    assert [row["layer"] for row in data["sparsity"]["layers"]] == ["conv", "bn", "wide", "last"]


def test_prune_trains_and_reaches_the_sparsity(setup, command, tmp_path):
    target = tmp_path / "pruned.keras"
    before = (setup / "dense.keras").read_bytes()
    arguments = ["--data", setup / "data.npz", "--sparsity", 0.8, "--epochs", 3, "-o", target]
    code, out, err = command("prune", setup / "dense.keras", *arguments, "--json")
    assert code == 0, err
    data = json.loads(out)
    model = loaded(target)
    assert type(model.get_layer("conv")) is layers.Conv2D
    zeros = {n: np.mean(model.get_layer(n).kernel.numpy() == 0) for n in ("conv", "wide", "last")}
    assert all(abs(share - 0.8) < 0.01 for share in zeros.values())
    assert data["sparsity"]["prunable"]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    with np.load(setup / "data.npz") as arrays:
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        found = model.evaluate(
            arrays["x_test"], arrays["y_test"], verbose=0, return_dict=True, batch_size=32
        )
    old, new = data["metrics"]["accuracy"]
    assert new == pytest.approx(found["accuracy"]) and old > 0.8 and new > 0.75
    assert (setup / "dense.keras").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["pruned.keras"]


def test_a_seed_repeats_a_training(setup, command, tmp_path):
    found = []
    for number, seed in enumerate((5, 5, 6)):
        target = tmp_path / f"{number}.keras"
        arguments = ["--data", setup / "data.npz", "--sparsity", 0.5, "--epochs", 1, "-o", target]
        code, _, err = command("prune", setup / "dense.keras", *arguments, "--seed", seed)
        assert code == 0, err
        found.append(loaded(target).get_layer("last").kernel.numpy())
    same, other = (np.array_equal(found[0], kernel) for kernel in found[1:])
    assert same and not other


def test_prune_and_shrink_says_what_became_smaller(setup, command, tmp_path):
    target = tmp_path / "small.keras"
    arguments = ["--data", setup / "data.npz", "--sparsity", 0.5, "--epochs", 1, "-o", target]
    options = [*arguments, "--pattern", "filter", "--shrink"]
    code, out, err = command("prune", setup / "plain.keras", *options)
    assert code == 0, err
    old, new = (tfprune.model_cost(loaded(path)) for path in (setup / "plain.keras", target))
    assert new.macs < 0.6 * old.macs
    (line,) = (line for line in out.splitlines() if "MACs" in line)
    assert f"{old.macs:,}" in line and f"{new.macs:,}" in line
    code, out, _ = command("prune", setup / "plain.keras", *options, "--force", "--json")
    plan = json.loads(out)["plan"]
    assert plan["before"]["macs"] == old.macs and plan["after"]["macs"] < 0.6 * old.macs


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (["--pattern", "filter", "--shrink"], lambda m: m.get_layer("conv").filters == 8),
        (["--n-of-m", 2, 4, "--exclude", "conv"], lambda m: (groups_of_four(m) == 2).all()),
        (
            ["--block", 4, 1, "--exclude", "conv"],
            lambda m: set(groups_of_four(m).ravel()) == {0, 4},
        ),
        (
            ["--scope", "global", "--exclude", "conv", "--schedule", "constant_sparsity"],
            lambda m: (m.get_layer("conv").kernel.numpy() != 0).all(),
        ),
        (
            ["--criterion", "taylor", "--schedule", "cosine", "--frequency", 7],
            lambda m: np.mean(m.get_layer("last").kernel.numpy() == 0) == 0.5,
        ),
        (
            ["--learning-rate", 0.01, "--loss", "sparse_categorical_crossentropy"],
            lambda m: np.mean(m.get_layer("last").kernel.numpy() == 0) == 0.5,
        ),
    ],
    ids=["filters", "n of m", "blocks", "global", "criterion", "training"],
)
def test_prune_by_all_methods(setup, command, tmp_path, options, check):
    target = tmp_path / "pruned.keras"
    arguments = ["--data", setup / "data.npz", "--sparsity", 0.5, "--epochs", 1, "-o", target]
    code, out, err = command("prune", setup / "plain.keras", *arguments, *options)
    assert code == 0, err
    assert "accuracy" in out and "epoch 1/1" in err
    assert check(loaded(target))


def groups_of_four(model):
    """Kept weights of each group along the inputs."""
    kernel = model.get_layer("last").kernel.numpy()
    return (kernel != 0).reshape(-1, 4, kernel.shape[1]).sum(axis=1)


def test_prune_on_images_and_train_on(setup, command, tmp_path):
    target = tmp_path / "wrapped.keras"
    data = ["--data", setup / "images", "--scale", 1 / 255, "--batch-size", 16]
    arguments = [*data, "--sparsity", 0.6, "--epochs", 2, "-o", target, "--keep-wrappers"]
    code, _, err = command("prune", setup / "plain.keras", *arguments)
    assert code == 0, err
    model = loaded(target)
    assert isinstance(model.get_layer("conv"), tfprune.PruneLowMagnitude)
    assert tfprune.sparsity_report(model).sparsity == pytest.approx(0.6, abs=0.01)


def test_images_are_read_as_they_are(setup):
    from tfprune.cli.loading import load_data

    class Arguments:
        data, scale, held_out = setup / "images", 1 / 255, 0.25

    data = load_data(Arguments, build())
    x, y = load_digits(return_X_y=True)
    assert len(data.test[0]) == 30 and len(data.train[0]) == 90
    known = {
        (255 * image / 16).astype("uint8").tobytes(): label
        for image, label in zip(x, y, strict=True)
    }
    for image, label in zip(*data.train, strict=True):
        assert known[(255 * image[..., 0] + 0.01).astype("uint8").ravel().tobytes()] == label


def test_shrink_to_a_target(setup, command, tmp_path):
    target, picture = tmp_path / "small.keras", tmp_path / "groups.png"
    code, out, err = command(
        "shrink", setup / "dense.keras", "-o", target, "--macs", 0.5, "--plot", picture
    )
    assert (code, err) == (0, "")
    old, new = (tfprune.model_cost(loaded(p)) for p in (setup / "plain.keras", target))
    assert new.macs <= 0.5 * old.macs and f"{new.macs:,}" in out
    assert picture.stat().st_size > 5000
    code, out, _ = command(
        "shrink", setup / "dense.keras", "-o", target, "--parameters", 0.7, "--force", "--json"
    )
    assert json.loads(out)["bytes"] == target.stat().st_size


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("m.tflite", ["--quantize", "int8", "--io-dtype", "int8", "--data"]),
        ("m.onnx", []),
        ("saved", ["--data"]),
        ("m.keras", ["--shrink"]),
    ],
)
def test_export(setup, command, tmp_path, name, options):
    options = [*options, setup / "data.npz"] if "--data" in options else options
    code, out, err = command(
        "export", setup / "plain.keras", "-o", tmp_path / name, "--json", *options
    )
    assert code == 0, err
    data = json.loads(out)
    assert Path(data["path"]).exists() and data["relative"] < 0.2


def test_compare(setup, command, tmp_path):
    pruned = tfprune.pruners.one_shot(loaded(setup / "dense.keras"), 0.5)
    tfprune.strip_pruning(pruned).save(tmp_path / "half.keras")
    models = [setup / "plain.keras", tmp_path / "half.keras"]
    options = ["--formats", "keras", "--runs", 2, "--data", setup / "data.npz"]
    files = ["--html", tmp_path / "page.html", "--markdown", tmp_path / "page.md"]
    code, out, err = command("compare", *models, *options, *files)
    assert code == 0, err
    assert "The files that ship" in out and "accuracy" in out
    assert "</html>" in (tmp_path / "page.html").read_text()
    assert "| conv | Conv2D |" in (tmp_path / "page.md").read_text()
    code, out, _ = command("compare", *models, "--formats", "--no-latency", "--json")
    data = json.loads(out)
    assert data["files"] == {} and data["latency"] is None and data["metrics"] == {}
    assert data["totals"]["zeros"][1] > 0


def test_schedule(command, tmp_path):
    options = ["--end-step", 50, "--frequency", 10, "--sparsity", 0.8]
    code, out, _ = command("schedule", "plot", "polynomial_decay", *options, "--json")
    data = json.loads(out)
    schedule = tfprune.PolynomialDecay(0.0, 0.8, 0, 50, frequency=10)
    assert code == 0
    assert data["updates"] == [
        {"step": step, "sparsity": pytest.approx(float(schedule(step)[1]))}
        for step in range(0, 51, 10)
    ]
    _, out, _ = command("schedule", "plot", "constant_sparsity", *options)
    assert "6 updates" in out
    # It is 0.8 from the first column to the last.
    assert [line.count("█") for line in out.splitlines()[:11]] == [0, 0] + [64] * 9
    code, out, _ = command("schedule", "plot", "cosine", "-o", tmp_path / "cosine.png")
    assert code == 0 and (tmp_path / "cosine.png").stat().st_size > 5000


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["report", "missing.keras"], "which does not exist"),
        (["report", "empty"], "the folder"),
        (["report", "saved_model"], "exported from"),
        (["report", "model.txt"], "ends with .keras or .h5"),
        (["report", "text.keras"], "damaged"),
        (["report", "damaged.keras"], "damaged"),
        (["report", "code.keras"], "--unsafe"),
        (["report", "own.keras"], "--import MODULE"),
        (["report", "own.keras", "--import", "no_such_module"], "can be imported"),
        (["report", "plain.keras", "-o", "text.keras"], "--force"),
        (["shrink", "plain.keras", "-o", "OUT.h5", "--macs", "0.5"], "ends with .keras"),
        (["shrink", "plain.keras", "-o", "no/OUT.keras"], "can be written"),
        (["shrink", "plain.keras", "-o", "OUT.keras", "--macs", "1.5"], "mean 0.015?"),
        (["shrink", "plain.keras", "-o", "OUT.keras", "--macs", "50"], "Did you mean 0.5?"),
        (["shrink", "plain.keras", "-o", "OUT.keras", "--latency", "80"], "Did you mean 0.8?"),
        (["shrink", "plain.keras", "-o", "OUT.keras", "--macs", "0"], "macs"),
        (["shrink", "plain.keras", "-o", "OUT.keras", "--criterion", "taylor"], "criterion"),
        (["export", "plain.keras", "-o", "OUT.tflite", "--quantize", "int8"], "data"),
        (["export", "plain.keras", "-o", "OUT.zip"], ".onnx"),
        (["export", "plain.keras", "-o", "OUT.onnx", "--data", "missing.npz"], "does not exist"),
        (["compare", "plain.keras", "missing.keras"], "does not exist"),
        (["compare", "plain.keras", "plain.keras", "--runs", "0"], "runs"),
        (["schedule", "plot", "cosine", "--sparsity", "90"], "0.9"),
        (["schedule", "plot", "constant_sparsity", "--initial-sparsity", "0.1"], "Leave it out"),
    ],
)
def test_errors_are_one_line(setup, command, monkeypatch, words, expected):
    monkeypatch.chdir(setup)
    files = sorted(setup.rglob("*"))
    code, out, err = command(*words)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("tfprune: error: ") and expected in line
    assert sorted(setup.rglob("*")) == files


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "missing.npz"], "does not exist"),
        (["--data", "names.npz"], "images, labels"),
        (["--data", "shapes.npz"], "(8, 8, 1)"),
        (["--data", "lengths.npz"], "1797 inputs and 1796 labels"),
        (["--data", "classes.npz"], "0 to 9"),
        (["--data", "objects.npz"], "cannot be read"),
        (["--data", "text.keras"], "a file of another kind"),
        (["--data", "array.npy"], "array.npy, a file of another kind. Write it with"),
        (["--data", "empty"], "no folders"),
        (["--data", "data.npz", "--sparsity", "80"], "0.8"),
        (["--data", "data.npz", "--epochs", "0"], "--epochs"),
        (["--data", "data.npz", "--epochs", "2", "--pruning-epochs", "3"], "up to --epochs, 2"),
        (["--data", "data.npz", "--held-out", "2"], "0 and 1"),
        (["--data", "data.npz", "--loss", "beauty"], "beauty"),
        (["--data", "data.npz", "--exclude", "nothing"], "nothing"),
        (["--data", "data.npz", "--shrink", "--keep-wrappers"], "one of"),
    ],
)
def test_errors_of_prune_are_one_line(setup, command, monkeypatch, options, expected):
    monkeypatch.chdir(setup)
    files = sorted(setup.rglob("*"))
    given = ["--sparsity", "0.5"] if "--sparsity" not in options else []
    code, out, err = command("prune", "plain.keras", "-o", "OUT.keras", *given, *options)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("tfprune: error: ") and expected in line
    assert sorted(setup.rglob("*")) == files


def test_code_runs_only_when_allowed(setup, command, monkeypatch):
    code, out, err = command("report", setup / "code.keras", "--unsafe")
    assert code == 0, err
    monkeypatch.chdir(setup)
    code, out, err = command("report", "own.keras", "--import", "users_layers")
    assert code == 0, err
    assert "dense" in out


PRUNE = ["prune", "m.keras", "-o", "out.keras", "--data", "d.npz", "--sparsity", "0.5"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "COMMAND"),
        (["grow"], "report"),
        (["prune", "m.keras"], "--sparsity"),
        (["schedule"], "ACTION"),
        ([*PRUNE, "--pattern", "diamond"], "n_of_m"),
        ([*PRUNE, "--scope", "galactic"], "erdos_renyi"),
        ([*PRUNE, "--criterion", "beauty"], "magnitude"),
        ([*PRUNE, "--schedule", "lunar"], "cosine"),
        (["export", "m.keras", "-o", "m.zip", "--format", "zip"], "litert"),
    ],
)
def test_a_command_line_that_is_not_understood(words, expected, capsys):
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: tfprune") and expected in said


def alone(*words, path=ROOT, **options):
    """Runs Python without anything that is installed: what is not in its library is not there."""
    return subprocess.run(
        [sys.executable, "-S", *words],
        env={"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])},
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
        # A background job of a shell ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["schedule", "plot"]])
def test_help_needs_no_keras(entry, command):
    done = alone(*entry, *command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["usage: tfprune", *command]))


@pytest.mark.parametrize("entry", ENTRIES)
def test_version_is_there_at_once(entry):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = alone(*entry, "--version")
        seconds.append(time.perf_counter() - start)
    assert (done.returncode, done.stdout) == (0, f"tfprune {tfprune.__version__}\n")
    # Without Keras it takes a tenth of that; the import of Keras takes several seconds.
    assert min(seconds) < 1


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_import_that_fails_is_one_line(entry):
    done = alone(*entry, "report", "m.keras")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("tfprune: error: ") and "numpy" in line
    assert "Traceback" in alone(*entry, "report", "m.keras", "--traceback").stderr


INTERRUPTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(20)
except BaseException:
    pass
"""


@pytest.mark.parametrize("entry", ENTRIES)
def test_interrupted_while_modules_are_imported(entry, tmp_path):
    """Even where an import catches every exception, as some libraries do."""
    for module in ("numpy", "keras"):
        (tmp_path / f"{module}.py").write_text(INTERRUPTED)
    done = alone(*entry, "report", "m.keras", path=tmp_path, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tfprune: interrupted\n")


def test_another_module_is_not_the_command(tmp_path):
    """While `python -m other` imports its package, its own words are none of tfprune's business."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text(
        "import sys\nfrom tfprune.cli.process import is_module\nprint(is_module(), sys.argv)"
    )
    (tmp_path / "other" / "__main__.py").write_text("")
    (tmp_path / "tfprune").mkdir()
    (tmp_path / "tfprune" / "__init__.py").write_text(f"__path__ = [{str(ROOT / 'tfprune')!r}]")
    done = alone("-m", "other", "--help", path=tmp_path)
    assert done.stdout == "False ['-m', '--help']\n", done.stderr


@pytest.fixture
def interrupts(monkeypatch):
    """Ctrl-C in a process that runs the command."""
    for name, value in {"at_once": False, "came": False, "said": False}.items():
        monkeypatch.setattr(INTERRUPTS, name, value)
    # A background job of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    INTERRUPTS.catch()
    yield
    INTERRUPTS.release()
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("lost", [False, True])
def test_interrupted(setup, command, monkeypatch, tmp_path, interrupts, lost):
    def interrupted(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)
        except KeyboardInterrupt as error:
            # Frameworks turn it into their own error.
            raise (RuntimeError("a graph failed") if lost else error) from None

    monkeypatch.setattr(keras.Model, "fit", interrupted)
    arguments = ["--data", setup / "data.npz", "--sparsity", 0.5, "-o", tmp_path / "out.keras"]
    code, _, err = command("prune", setup / "plain.keras", *arguments)
    assert (code, err) == (130, "tfprune: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_is_there_for_those_who_ask(command):
    code, _, err = command("report", "missing.keras", "--traceback")
    assert code == 1 and "Traceback" in err


def test_as_a_process(setup):
    """Only the command's own messages, none of TensorFlow."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "tfprune", "report", setup / "plain.keras", "--json"],
        env=dict(environment, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["sparsity"]["prunable"]["zeros"] == 0


@pytest.mark.slow
def test_the_whole_way_with_a_model_from_elsewhere(command, tmp_path, monkeypatch):
    """What a newcomer does with a model of keras.applications, from report to comparison."""
    monkeypatch.chdir(tmp_path)
    model = keras.applications.MobileNet((32, 32, 3), 0.25, weights=None, classes=4)
    random = np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.name
        noise = random.normal(0, 0.1, weight.shape)
        weight.assign(weight.numpy() + (np.abs(noise) if positive else noise))
    model.save("model.keras")
    x = random.uniform(0, 1, (96, 32, 32, 3)).astype("float32")
    np.savez("data.npz", x=x, y=random.integers(0, 4, 96))
    data = ["--data", "data.npz"]

    code, out, _ = command("report", "model.keras", "--json")
    dense = json.loads(out)
    assert code == 0 and dense["cost"]["parameters"] == model.count_params()
    code, out, err = command(
        "prune", "model.keras", *data, "--sparsity", 0.75, "--epochs", 2, "-o", "zeros.keras"
    )
    assert code == 0, err
    code, out, err = command(
        *("prune", "model.keras", *data, "--sparsity", 0.5, "--epochs", 2, "--pattern", "filter"),
        *("-o", "filters.keras"),
    )
    assert code == 0, err
    code, out, err = command("shrink", "filters.keras", "-o", "small.keras", "--json")
    assert code == 0, err
    small = json.loads(out)["plan"]["after"]
    assert small["macs"] < 0.5 * dense["cost"]["macs"]
    for name, options in {"zeros.tflite": ["--quantize", "int8", *data], "small.onnx": []}.items():
        source = name.split(".")[0] + ".keras"
        code, out, err = command("export", source, "-o", name, *options)
        assert code == 0, err
    code, out, err = command(
        *("compare", "model.keras", "small.keras", *data, "--html", "page.html", "--runs", 3),
        *("--formats", "keras", "int8 litert", "--json"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["totals"]["macs"] == [dense["cost"]["macs"], small["macs"]]
    assert found["files"]["int8 litert"][1]["raw"] < found["files"]["int8 litert"][0]["raw"] / 2
    assert set(found["metrics"]) == {"loss", "accuracy"}
