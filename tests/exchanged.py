"""What the tests of the exchange share: stores with runs, and a network that loses what it is told to lose."""

import http.client
import io
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np

from metamed.dataset import ArrayImages, Card, Dataset
from metamed.measures import evaluate
from metamed.records import Run, Setup
from metamed.store import Store
from metamed.tasks import make_task

KEY = "normaluser"
SETUPS = (Setup("small_cnn", {"epochs": 3}), Setup("small_cnn"),
          Setup("resnet", {}, "finetune", ("imagenet.torchvision.resnet18",)))  # fmt: skip


def images(name: str = "scans", n: int = 40, classes: int = 2, seed: int = 0, size: int = 8) -> Dataset:
    """Noise with patients and class names; every seed is another dataset."""
    rng = np.random.default_rng(seed)
    target = np.arange(n) // 2 % classes
    card = Card(modality="x-ray", classes=tuple(f"class {k}" for k in range(classes)), license="CC0", family="noise")
    pixels = rng.integers(0, 255, (n, 1, size, size)).astype(np.uint8)
    patients = np.array([f"patient {i // 2}" for i in range(n)])
    return Dataset(name, ArrayImages(pixels), target, groups=patients, card=card)


def add_run(store: Store, data: Dataset, setup: Setup = SETUPS[0], seed: int = 0, task=None, sharpen: float = 1.0,
            **changes) -> Run:  # fmt: skip
    """A run as training would leave it, of a model right by chance and a little more. sharpen: how sure it is."""
    task = task or make_task(data)
    rng = np.random.default_rng([seed, *map(ord, setup.id)])

    def guess(samples: np.ndarray) -> np.ndarray:
        p = rng.dirichlet(np.ones(data.n_classes), len(samples)).astype(np.float32)
        p[np.arange(len(samples)), data.target[samples]] += 0.4
        p = p**sharpen
        return p / p.sum(1, keepdims=True)

    file, arrays, scores = io.BytesIO(), {}, []
    for fold in task.folds:
        score = {}
        for part, prefix in (("validation", "validation_"), ("test", "")):
            samples = np.array(getattr(fold, part))
            answers = guess(samples)
            found = evaluate(data.kind, data.target[samples], answers)
            score |= {prefix + name: found[name] for name in (found if part == "test" else ["auc"])}
            arrays.setdefault(part, []).append(answers.astype(np.float16))
            arrays.setdefault(f"{part}_index", []).append(samples)
            arrays.setdefault(f"{part}_fold", []).append(np.full(len(samples), len(scores)))
        scores.append(score)
    np.savez_compressed(file, **{name: np.concatenate(v) for name, v in arrays.items()
                                 if len(task.folds) > 1 or "_fold" not in name})  # fmt: skip
    scores = {name: tuple(score[name] for score in scores) for name in scores[0]}
    run = Run(task.id, setup.id, seed, (1, 1), scores, 2.5,
              {"metamed": "0.1.0", "device": "cpu", "home": "/home/nurse"})  # fmt: skip
    run = replace(run, **changes)
    store.add_all([data, task, setup])
    store.add(run, artifacts={"predictions.npz": file.getvalue()})
    return run


class Network:
    """A proxy in front of a server. faults: what happens to the next POSTs of a path, e.g. ("run/", "lose")."""

    def __init__(self, target: str):
        self.target, self.faults, self.posts = urlsplit(target), [], []
        network = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                network.forward(self)

            def do_POST(self):
                network.forward(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("localhost", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self._server.server_port}/api/v1/xml"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def forward(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = None
        if request.command == "POST":
            self.posts.append(request.path)
            if self.faults and request.path.endswith(f"/xml/{self.faults[0][0]}"):
                fault = self.faults.pop(0)[1]
        if callable(fault):
            fault()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "accept-encoding")}
        connection = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=30)
        if fault == "cut":  # the server gets half of it, and nobody an answer
            connection.putrequest(request.command, request.path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body[: len(body) // 2])
            connection.close()
            request.close_connection = True
            return
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            request.close_connection = True
            return
        if fault == "lose":  # the server has done it all, and nobody hears of it
            request.close_connection = True
            return
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@contextmanager
def network(target: str):
    proxy = Network(target)
    try:
        yield proxy
    finally:
        proxy.close()
