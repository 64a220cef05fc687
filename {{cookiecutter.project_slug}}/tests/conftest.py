import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import data, predict, settings, train
from {{ cookiecutter.package_name }}.exported import SUFFIX

COMMITTED = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="session")
def quick():
    """The settings with a shorter evaluation, so that the tests stay quick."""
    return settings.read("quick")


@pytest.fixture(scope="session")
def table(quick):
    return data.load(quick)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory, quick):
    """A folder that was trained into just now."""
    folder = tmp_path_factory.mktemp("models")
    train.train(quick, folder)
    return folder


HAS_MODEL = (COMMITTED / f"model.{SUFFIX}").is_file()


@pytest.fixture(params=["fresh", "committed"] if HAS_MODEL else ["fresh"])
def models(request, fresh):
    """Each folder that holds a model: what training gives now, and what is committed."""
    return fresh if request.param == "fresh" else COMMITTED


@pytest.fixture
def predictor(models):
    return predict.load(models / f"model.{SUFFIX}")


@pytest.fixture
def recorded(models):
    return json.loads((models / "examples.json").read_text("utf-8"))


@pytest.fixture
def metrics(models):
    return json.loads((models / "metrics.json").read_text("utf-8"))


@pytest.fixture
def row(recorded):
    """One complete row of the recorded inputs."""
    complete = zip(*recorded["inputs"].values(), strict=True)
    values = next(values for values in complete if None not in values)
    return {name: [value] for name, value in zip(recorded["inputs"], values, strict=True)}


@pytest.fixture
def httpserver_folder(tmp_path):
    """The address of a server on loopback that hands out the folder `there`."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path / "there")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
