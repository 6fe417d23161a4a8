"""examples/service/app.py as a process of its own: answers, refusals, many clients, and its load test."""

import asyncio
import http.client
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coc_runtime import Session
from sites import ROOT, Site, run

pytest.importorskip("fastapi", reason="the service runs on FastAPI")
pytest.importorskip("uvicorn", reason="the service runs on uvicorn")

APP = ROOT / "examples/service/app.py"
SECONDS = 60


@dataclass(frozen=True)
class Service:
    host: str
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """(status, decoded answer)."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def status(self, method: str, path: str, body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body)
            return connection.getresponse().status
        finally:
            connection.close()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/classify"


@pytest.fixture(scope="module")
def service(digits_site: Site) -> Iterator[Service]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, str(APP), str(digits_site.coc), "--port", "0"]
    server = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = ""
        for line in server.stderr:
            said += line
            if found := re.search(r"running on http://([\d.]+):(\d+)", line):
                yield Service(found[1], int(found[2]))
                break
        else:
            pytest.fail(f"the service did not start: {said}")
    finally:
        server.terminate()
        server.wait(SECONDS)
        server.stderr.close()


@pytest.fixture(scope="module")
def app() -> ModuleType:
    """examples/service/app.py, imported."""
    spec = importlib.util.spec_from_file_location("service_app", APP)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_health_says_what_the_model_takes(service: Service) -> None:
    status, answer = service.ask("GET", "/health")
    assert (status, answer["status"], answer["input"]) == (200, "ok", [1, 8, 8])


def test_many_clients_at_once_get_what_the_reference_gives(service: Service, digits_site: Site) -> None:
    found = digits_site.expected()
    wanted = [
        (200, {"label": int(label), "exit": int(taken), "confidence": pytest.approx(confidence, rel=1e-6)})
        for label, taken, confidence in zip(found.label, found.exit, found.confidence, strict=True)
    ]
    bodies = [path.read_bytes() for path in digits_site.png]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda body: service.ask("POST", "/classify", body), bodies * 4))
    assert answers == wanted * 4


def test_mistakes_of_a_client_are_told_to_it(service: Service, digits_site: Site) -> None:
    good = digits_site.png[0].read_bytes()
    for body, status, words in (
        (b"hello", 415, "no readable file of BMP, JPEG, PNG, PPM, WEBP"),
        (b"", 415, "no readable file"),
        (good[:60], 415, "no readable file"),
        (png(9, 8), 422, "the image has 9x8 pixels, the model takes 8x8"),
        (png(9000, 9000), 422, "the image has 9000x9000 pixels"),
        (bytes(1 << 20) + b"1", 413, "larger than 1048576 bytes"),
    ):
        found, answer = service.ask("POST", "/classify", body)
        assert (found, list(answer)) == (status, ["detail"]), answer
        assert words in answer["detail"]
        assert "object at" not in answer["detail"]
    assert service.ask("GET", "/classify")[0] == 405
    assert service.ask("POST", "/classify", good)[0] == 200


def test_a_client_that_hangs_up_does_no_harm(service: Service, digits_site: Site) -> None:
    with socket.create_connection((service.host, service.port)) as half:
        half.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    assert service.ask("POST", "/classify", digits_site.png[0].read_bytes())[0] == 200


def test_a_body_that_does_not_arrive_is_given_up(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        async def stream(self) -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(SECONDS)

    monkeypatch.setattr(app, "MAX_SECONDS", 0.05)
    with pytest.raises(app.HTTPException) as caught:
        asyncio.run(app.receive(Slow()))
    assert caught.value.status_code == 408


def test_too_many_connections_are_turned_away_and_then_served_again(
    service: Service, digits_site: Site, app: ModuleType
) -> None:
    good = digits_site.png[0].read_bytes()
    with ExitStack() as idle:
        for _ in range(app.MAX_CONNECTIONS):
            idle.enter_context(socket.create_connection((service.host, service.port)))
        assert service.status("POST", "/classify", good) == 503
    for _ in range(50):  # until the server has seen that they are closed
        if service.status("POST", "/classify", good) == 200:
            return
        time.sleep(0.1)
    pytest.fail("still turned away")


def test_a_regression_is_answered_with_its_numbers(app: ModuleType, regression_site: Site) -> None:
    found = regression_site.expected()
    body = regression_site.png[0].read_bytes()
    assert app.answer(Session(regression_site.coc), body) == {
        "numbers": found.logits[0].tolist(),
        "exit": int(found.exit[0]),
    }


def test_a_model_that_cannot_be_opened_is_one_line(digits_site: Site) -> None:
    done = run(APP, digits_site.png[0])
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_load_test_counts_answers_and_failures(service: Service, digits_site: Site) -> None:
    load = "examples/service/load.py"
    images = digits_site.png[:3]
    done = run(load, service.url, *images, "--clients", 4, "--seconds", 0.5)
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(r"4 clients: (\d+) requests/s, p50 [\d.]+ ms, p99 [\d.]+ ms, 0 failed\n", done.stdout)
    assert said and int(said[1]) > 0
    wrong = run(load, service.url, ROOT / "docs/chain.png", "--clients", 2, "--seconds", 0.2)
    assert wrong.returncode == 1
    assert re.search(r"[1-9]\d* failed \{'422': [1-9]\d*\}", wrong.stdout)
