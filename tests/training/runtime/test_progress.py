"""Progress of a long loop: lines where there is no terminal, every item once."""

from har.training.runtime import progress


def test_without_a_terminal_progress_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    items = progress.track(range(3), total=3, description="epoch 1", postfix=lambda: "1% waiting")
    assert list(items) == [0, 1, 2]
    text = capsys.readouterr().err
    assert "epoch 1:" in text
    assert "1% waiting" in text
    assert "\r" not in text


def test_a_short_loop_writes_nothing(capsys):
    assert list(progress.track(range(3), total=3, description="epoch 1")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
