"""The progress of a pass: how many images are done, how fast, and what is left."""

import logging
import time

import pytest

from vq.engine.evaluation import progress


def test_speed_and_eta_are_those_of_the_images_that_were_done_lately(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger="vq")
    monkeypatch.setattr(logging.getLogger("vq"), "propagate", True)
    with progress.PassProgress("tokenize", 1000) as shown:
        time.sleep(0.5)  # workers start
        for done in (400, 10, 10):  # the first images were there already
            shown.advance(done)
            time.sleep(0.1)
    assert "tokenize: 400/1000 images" in caplog.messages[0]
    assert "images/s" not in caplog.messages[0]
    words = caplog.messages[-1].split()
    assert words[:3] == ["tokenize:", "420/1000", "images"]
    assert words[4:6] == ["images/s", "eta"]
    assert 0 < float(words[3]) <= 101  # 20 images in 0.2 s or more
    assert words[6] >= "0:00:05"  # 580 are left
