"""``dinogrl serve`` from the command line: mistakes are one line, the address is told, Ctrl-C ends it well."""

from __future__ import annotations

import builtins
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from dinogrl.cli.main import main
from dinogrl.web.service import Service
from dinogrl.web.serving import Door, listen
from tiny_server import make_home

BASE = "serve --gallery {home}/people.gallery --model {home}/model.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("serve"), people=2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{BASE} --host 0.0.0.0", "others can reach 0.0.0.0, so a token is needed: give --token-file FILE"),
        (f"{BASE} --host :: --token short", "must have 16 or more printable letters"),
        (f"{BASE} --token-file nowhere", "the token file nowhere cannot be read"),
        (f"{BASE} --expire-after soon", "is no age"),
        (f"{BASE} --prior 1", "--prior is 1.0; give a share between 0 and 1"),
        (f"{BASE} --certificate nowhere", "give both, or neither"),
        (f"{BASE} --port 99999", "port 99999 is none"),
        (f"{BASE} --port {{taken}}", "give another --port"),
        (f"{BASE} --host nowhere.invalid --token aaaaaaaaaaaaaaaaaaaa", "cannot listen on http://nowhere.invalid:8000"),
        ("serve --gallery nowhere --model {home}/model.safetensors --port 0", "no gallery at nowhere"),
        ("serve --gallery nowhere --model {home}/model.safetensors --port 0 --expire-after 30", "no gallery at nowhere"),
        ("serve --gallery {home}/people.gallery --model nothing.safetensors --port 0", "no model at nothing.safetensors"),
        ("serve --gallery {home}/people.gallery", "Missing option '--model'"),
    ],
)
def test_mistakes_are_one_line(home: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with listen(Door(port=0)) as taken:
        assert main(line.format(home=home, taken=taken.getsockname()[1]).split()) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and message in said
    assert not Path("nowhere").exists()


def test_without_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name == "fastapi":
            raise ImportError("no module", name=name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["serve", "--gallery", "x", "--model", "y"]) == 2
    assert "needs fastapi, which is not installed: pip install 'dinogrl[web]'" in capsys.readouterr().err


def test_every_option_reaches_the_server(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = []

    def note_down(service: Service, door: Door, at: socket.socket) -> None:
        served.append((service.settings, door))
        service.jobs.stop()
        service.pool.close()

    monkeypatch.setattr("dinogrl.web.serving.run", note_down)
    (tmp_path / "tokens").write_text(f"ann {'a' * 20}\n")
    line = f"{BASE} --port 0 --state {tmp_path}/state --token-file {tmp_path}/tokens --token {'b' * 20}"
    line += " --allow-host Search.example:8000 --expire-after 7 --prior 0.2 --searches-a-minute 9"
    line += " --upload-mb 3 --video-seconds 11 --proxy 10.0.0.7"
    assert main(line.format(home=home).split()) == 0
    ((settings, door),) = served
    limits = (settings.limits.searches_a_minute, settings.limits.body_bytes, settings.limits.video_seconds)
    assert limits == (9, 3 << 20, 11) and settings.prior == 0.2 and settings.state == tmp_path / "state"
    assert settings.expire_after == timedelta(days=7) and settings.hosts == {"search.example", "127.0.0.1"}
    assert [settings.tokens.name_of(letter * 20) for letter in "ab"] == ["ann", "operator"] and door.proxy == "10.0.0.7"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(home: Path, ending: signal.Signals) -> None:
    line = [sys.executable, "-m", "dinogrl", *BASE.format(home=home).split(), "--port", "0", "--expire-after", "30"]
    environment = {**os.environ, "DINOGRL_SERVE_TOKEN": "a-token-in-the-environment"}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None and server.stderr is not None
        told = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert told, server.stderr.read()
        assert httpx.get(f"{told[0]}/healthz", timeout=60).json() == {"status": "ok"}
        assert httpx.get(f"{told[0]}/api/gallery", timeout=60).status_code == 401
        token = {"Authorization": "Bearer a-token-in-the-environment"}
        about = httpx.get(f"{told[0]}/api/gallery", headers=token, timeout=60).json()
        assert (about["who"], about["tracklets"], about["expire_after_seconds"]) == ("operator", 6, 30 * 86400)
        server.send_signal(ending)
        said = server.stderr.read()
        assert server.wait(60) == 0 and "Traceback" not in said and "ended; unfinished uploads go on" in said, said
    assert (home / "people.gallery.serve" / "audit.jsonl").is_file()
