"""Claims about `packager export`: what it writes is allowed, pinned, sealed, measured, and runs."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apptainer
import published
import pytest
import yaml
from chroots import or_skip
from conftest import REPOSITORY, Tiny, git, write_tiny

from packager import exporting
from packager.outputs import containers
from packager.outputs.engine import Engine

# One project, whose image is measured once.
pytestmark = pytest.mark.xdist_group("export")

REF = "registry.example:5000/lab/no:1"
FORMS = ("kubernetes", "kubernetes-job", "kserve")
SEAL = containers._seal("1g", 1)


@dataclass
class Exported:
    """A project that is called by a word of YAML's, and what was written for it."""

    tiny: Tiny
    built: dict[str, Any]
    texts: dict[str, str]

    def manifests(self, form: str) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all(self.texts[form]))

    def pod(self, form: str) -> dict[str, Any]:
        return pod_of(self.manifests(form)[0])

    def container(self, form: str) -> dict[str, Any]:
        return container_of(self.manifests(form)[0])


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    found: dict[str, Any] = spec["predictor"] if "predictor" in spec else spec["template"]["spec"]
    return found


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    [container] = pod_of(manifest)["containers"]
    found: dict[str, Any] = container
    return found


@pytest.fixture(scope="module")
def exported(
    shared_store: Path, tmp_path_factory: pytest.TempPathFactory, engine: Engine
) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("export")
    write_tiny(folder / "no", "no")
    tiny = Tiny(folder / "no", shared_store)
    tiny.edit("pyproject.toml", "[tool.packager]\n", "[tool.packager]\nserve = true\n")
    tiny.edit("pyproject.toml", '"0.1.0"', '"1!0.1+x.y"')
    git(tiny.root, "init", "-q")
    git(tiny.root, "add", "-A")
    locked = tiny.run("lock")
    assert locked.returncode == 0, locked.stderr
    texts = {form: export(tiny, form, REF) for form in FORMS}
    built = tiny.built("--no-load", "-o", str(folder / "image.tar"))
    yield Exported(tiny, built, texts)
    engine.client.images.remove("no:1_0.1_x.y", force=True)


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> published.Schemas:
    return published.fetch(tmp_path_factory.mktemp("schemas"))


def export(tiny: Tiny, *words: str, **environment: str) -> str:
    run = tiny.run("export", *words, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


# --- What is written -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_manifest_is_as_the_published_schemas_allow(
    form: str, exported: Exported, schemas: published.Schemas
) -> None:
    for manifest in exported.manifests(form):
        schemas.check(manifest)
        assert manifest["metadata"]["name"].split("-")[0] == "no"  # and not false


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["pod", "container", "security", "probe", "value"])
def test_the_schemas_find_what_is_wrong(
    form: str, place: str, exported: Exported, schemas: published.Schemas
) -> None:
    manifest, *_ = exported.manifests(form)
    container = container_of(manifest)
    probe = container.setdefault("readinessProbe", {})
    schemas.check(manifest)
    if place == "value":
        container["securityContext"]["readOnlyRootFilesystem"] = "yes"
    else:
        inside = {"pod": pod_of(manifest), "container": container, "probe": probe}
        inside["security"] = container["securityContext"]
        inside[place]["readOnly"] = True
    with pytest.raises(published.WrongError, match=r"readOnly|'yes'"):
        schemas.check(manifest)


@pytest.mark.parametrize(
    ("project", "name"),
    [
        ("Penguins_of.Palmer", "penguins-of-palmer"),
        ("3d", "model-3d"),
        ("a" * 39 + "_b" * 9, "a" * 39),
    ],
)
def test_a_name_is_one_that_every_part_may_have(project: str, name: str) -> None:
    assert exporting._name(project) == name
    # With what a Job, and KServe, put behind it.
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", f"{name}-predictor")


@pytest.mark.parametrize("form", FORMS)
def test_the_image_is_pinned_by_the_digest_that_a_registry_will_have(
    form: str, exported: Exported
) -> None:
    pinned = f"registry.example:5000/lab/no@{exported.built['manifest']}"
    assert exported.container(form)["image"] == pinned
    said = exported.manifests(form)[0]["metadata"]["annotations"]
    assert said["org.model-packager.image"] == exported.built["id"]
    assert said["org.model-packager.version"] == "1!0.1+x.y"


@pytest.mark.parametrize("form", FORMS)
def test_a_pod_is_sealed_as_the_smoke_test_is(form: str, exported: Exported) -> None:
    pod, container = exported.pod(form), exported.container(form)
    context = pod["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == SEAL["user"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": SEAL["read_only"],
        "allowPrivilegeEscalation": SEAL["security_opt"] != ["no-new-privileges"],
        "capabilities": {"drop": SEAL["cap_drop"]},
    }
    memory = {"medium": "Memory", "sizeLimit": f"{containers.TMP_MB}Mi"}
    assert pod["volumes"][0] == {"name": "tmp", "emptyDir": memory}
    assert container["volumeMounts"][0] == {"name": "tmp", "mountPath": "/tmp"}
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("form", FORMS)
def test_a_policy_denies_the_pods_all_egress(form: str, exported: Exported) -> None:
    first, *_, policy = exported.manifests(form)
    assert policy["kind"] == "NetworkPolicy"
    assert "Egress" in policy["spec"]["policyTypes"]
    assert "egress" not in policy["spec"]
    selected = policy["spec"]["podSelector"]["matchLabels"]
    if form == "kserve":  # which labels its pods with the service's name
        assert selected == {"serving.kserve.io/inferenceservice": first["metadata"]["name"]}
    else:
        assert selected == first["spec"]["template"]["metadata"]["labels"]


def test_a_service_leads_to_the_deployments_port(exported: Exported) -> None:
    deployment, service, _ = exported.manifests("kubernetes")
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    [port] = exported.container("kubernetes")["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


# --- What is measured ------------------------------------------------------------------------


def test_the_memory_that_is_asked_for_suffices_and_a_quarter_of_it_does_not(
    exported: Exported,
) -> None:
    asked = exported.container("kubernetes")["resources"]
    request, limit = (
        int(asked[key]["memory"].removesuffix("Mi")) for key in ("requests", "limits")
    )
    assert limit == 2 * request
    assert request % 16 == 0
    image = exported.built["id"]
    enough = exported.tiny.run("smoke", image, "--memory", f"{limit}m")
    assert enough.returncode == 0, enough.stderr
    little = exported.tiny.run("smoke", image, "--memory", f"{request // 4}m")
    assert little.returncode == 1
    assert f"it needs more than {request // 4}m of memory" in little.stderr


def test_what_was_measured_once_is_written_again(exported: Exported, tmp_path: Path) -> None:
    out = tmp_path / "server.yaml"
    again = exported.tiny.run("export", "kubernetes", REF, "-o", str(out))
    assert (again.returncode, again.stdout) == (0, "")
    assert "measured before" in again.stderr
    assert out.read_text("utf-8") == exported.texts["kubernetes"]


# --- What is run -----------------------------------------------------------------------------


def test_the_probes_are_answered(exported: Exported, engine: Engine) -> None:
    container = exported.container("kubernetes")
    assert container["ports"] == [{"name": "http", "containerPort": containers.PORT}]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == {"http"}
    address = ("127.0.0.1", 0)
    with engine.served(
        exported.built["id"], container["args"], address=address, memory="1g", processes=64
    ) as server:
        next(line for line in server.lines() if b'"ready"' in line)
        asked = [status(server.port, path) for path in [probe["path"] for probe in probes]]
        assert asked == [200, 200, 200]
        assert status(server.port, "/v2/health/other") == 404


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    return connection.getresponse().status


@pytest.mark.parametrize("shard", ["good", "wrong", "missing"])
def test_a_pod_of_the_job_predicts_its_shard_or_leaves_none(
    shard: str, exported: Exported, engine: Engine, tmp_path: Path
) -> None:
    container = exported.container("kubernetes-job")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "7.csv").write_text("x\n1\n2\n" if shard == "good" else "y\n1\n")
    for path in (tmp_path, tmp_path / "rows"):
        shutil.chown(path, 65532, 65532)
    options = {**SEAL, "mem_limit": "1g", "memswap_limit": "1g", "pids_limit": 64}
    made = engine.client.containers.create(
        exported.built["id"],
        entrypoint=container["command"],
        working_dir=container["workingDir"],
        environment={"JOB_COMPLETION_INDEX": "8" if shard == "missing" else "7"},
        volumes={str(tmp_path): {"bind": container["volumeMounts"][1]["mountPath"]}},
        **options,
    )
    try:
        made.start()
        code = made.wait()["StatusCode"]
    finally:
        made.remove(force=True)
    results = {path.name: path.read_text() for path in tmp_path.glob("predictions/[!.]*")}
    assert (code, results) == ((0, {"7.csv": "y\n2.5\n5.0\n"}) if shard == "good" else (2, {}))


def test_a_job_has_a_pod_for_each_shard(exported: Exported) -> None:
    [job, _] = yaml.safe_load_all(export(exported.tiny, "kubernetes-job", REF, "--shards", "12"))
    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (12, 12)


def test_a_table_is_cut_as_the_docs_say(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/exporting.md").read_text("utf-8")
    [recipe] = re.findall(r"```\n(awk .*?)```", text, re.DOTALL)
    rows = [f"{number},a" for number in range(25)]
    (tmp_path / "table.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    (tmp_path / "rows").mkdir()
    subprocess.run(["sh", "-c", recipe], cwd=tmp_path, check=True)
    shards = [(tmp_path / f"rows/{number}.csv").read_text().splitlines() for number in range(10)]
    assert {head for head, *_ in shards} == {"x,y"}
    assert sorted(row for _, *shard in shards for row in shard) == sorted(rows)


# --- Apptainer -------------------------------------------------------------------------------


def test_a_definition_names_the_archive_or_the_registry(exported: Exported) -> None:
    local = export(exported.tiny, "apptainer", DOCKER_HOST="unix:///nowhere")
    assert "\nBootstrap: docker-archive\nFrom: no-1_0.1_x.y.tar\n" in local
    assert "packager build -o no-1_0.1_x.y.tar --no-load\n" in local
    remote = export(exported.tiny, "apptainer", REF, DOCKER_HOST="unix:///nowhere")
    pinned = f"registry.example:5000/lab/no@{exported.built['manifest']}"
    assert f"\nBootstrap: docker\nFrom: {pinned}\n" in remote
    assert "packager build" not in remote


@pytest.mark.whole
def test_apptainer_converts_proves_and_runs_it_as_the_user_who_asks(
    tiny: Tiny, tmp_path: Path
) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    with or_skip(), apptainer.installed() as host:
        (lab / "tiny.def").write_text(export(tiny, "apptainer"))
        tiny.built("--no-load", "-o", str(lab / "tiny-0.1.0.tar"))
        build = ["apptainer", "build"]
        direct = host.run([*build, "direct.sif", "docker-archive:tiny-0.1.0.tar"], lab)
        assert direct.returncode == 0, direct.stderr
        defined = host.run([*build, "tiny.sif", "tiny.def"], lab)
        assert defined.returncode == 0, defined.stderr
        assert "3 of 3 agree" in defined.stdout + defined.stderr
        for sif in ("direct.sif", "tiny.sif"):
            tested = host.run([*apptainer.SEALED, sif, "selftest"], lab)
            assert "passed" in tested.stdout, tested.stderr
        predicted = host.run([*apptainer.SEALED, "tiny.sif", "predict"], lab, "x\n2\n")
        assert json.loads(predicted.stdout) == {"y": 5.0}
        # One that predicts otherwise than was recorded becomes no image.
        tiny.edit("src/tiny/predict.py", "self.factor = ", "self.factor = 2 * ")
        tiny.built("--no-load", "-o", str(lab / "tiny-0.1.0.tar"))
        wrong = host.run([*build, "wrong.sif", "tiny.def"], lab)
        assert wrong.returncode != 0
        assert not (lab / "wrong.sif").exists()


# --- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kubernetes"], "packager export kubernetes REGISTRY/NAME:TAG"),
        (["kserve", "Registry/UPPER"], "names no image"),
        (["kubernetes", REF], "an image without a server is nothing for kubernetes"),
        (["slurm", REF], "'slurm' is not one of"),
        (["kubernetes-job", REF, "--shards", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_done(
    words: list[str], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    out = tmp_path / "out.yaml"
    run = tiny.run("export", *words, "-o", str(out), DOCKER_HOST="unix:///nowhere")
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not out.exists()


def test_nothing_is_written_for_an_image_that_fails(tiny: Tiny, tmp_path: Path) -> None:
    tiny.edit("src/tiny/predict.py", "self.factor = ", "self.factor = 2 * ")
    out = tmp_path / "job.yaml"
    run = tiny.run("export", "kubernetes-job", REF, "-o", str(out))
    assert run.returncode == 1
    assert "does not predict what was recorded" in run.stderr
    assert not out.exists()
