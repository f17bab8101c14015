"""The benchmark's arithmetic, on a network too small for its figures to mean anything."""

import importlib

from skipdiff_env.diffusion import random_model, tiny_config


def test_shares_and_speeds_are_consistent(capsys, monkeypatch):
    throughput = importlib.import_module("benchmarks.speed.environment")
    model = random_model(tiny_config())
    line = throughput.measure(model, batch=2, episodes=1, metric="psnr")
    assert line.batch == 2 and 0 < line.outside < 1 and line.call_ms > 0
    # one episode: the medians are its own figures, and both kinds took the same 2 x 9 steps
    assert abs(line.gain - line.batched / line.single) < 1e-9
    # 9 calls of CSA and at least the last one; what is not outside is network or metric
    assert line.call_ms * 10 / 1000 <= (1 - line.outside) * 18 / line.batched
    assert not model.network._forward_hooks and not model.network._forward_pre_hooks
    monkeypatch.setattr(throughput, "load_pretrained", lambda name, device: model)
    monkeypatch.setattr(throughput, "measure", lambda model, batch, episodes: line)
    assert throughput.main(["--batches", "2", "--episodes", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "192x192 images" in printed[0] and printed[1:] == [throughput.HEADER, str(line)]
