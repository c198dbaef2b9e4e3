"""What a training run shows."""

import io

import pytest
from rich.console import Console

from tvm_sparsewino.nn import training_view
from tvm_sparsewino.nn.training_view import TrainingView


@pytest.fixture
def screen(monkeypatch):
    """Where everything that is shown goes."""
    text = io.StringIO()
    monkeypatch.setattr(
        training_view, "Console", lambda stderr: Console(file=text, width=100, force_terminal=False)
    )
    return text


def test_table_and_bar_show_the_latest_figures(screen):
    with TrainingView(40, "seed 3") as view:
        for step in range(0, 40, 2):
            view.add({"step": step, "loss": 1 / (step + 1), "name": "no number"})
        view.add({"step": 40, "loss": None, "accuracy": 97.12345})
        view.advance(40, "loss 0.02")
    text = screen.getvalue()
    for word in ("seed 3", "40/40", "accuracy", "97.12", "loss 0.02", "0.02703"):
        assert word in text
    # The first lines have left the table, what is no number was never in it.
    assert "no number" not in text and "0.3333" not in text


def test_an_invisible_one_shows_nothing(screen, capsys):
    with TrainingView(4, visible=False) as view:
        view.add({"step": 0})
        view.advance(4, "done")
    assert screen.getvalue() == "" and capsys.readouterr() == ("", "")


def test_an_error_leaves_the_screen_usable(screen):
    with pytest.raises(KeyError), TrainingView(4) as view:
        view.advance(2, "half")
        raise KeyError
    assert "2/4" in screen.getvalue()
