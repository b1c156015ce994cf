"""configs/kubernetes: valid against the schemas of Kubernetes, consistent, and with commands that exist.

There is no `kustomize` here. What is rendered is what the files use of it: `resources`, and strategic merge patches by
the keys with which Kubernetes merges these lists. Nothing was applied to a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from odkeras.config import declared_options
from odkeras.config.sources import effective_values
from odkeras.web.security import HEALTH_PATH

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "kubernetes"
VARIANTS = ("base", "gpu", "postgres")
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
KNOWN_KEYS = {"apiVersion", "kind", "labels", "resources", "patches"}
NOT_ODKERAS = {"serving": {"rest_api_port", "model_name", "model_base_path", "file_system_poll_wait_seconds"}}
Document = dict[str, Any]

sys.path.insert(0, str(ROOT / "scripts"))
try:
    import docs_hooks
finally:
    sys.path.remove(str(ROOT / "scripts"))

COMMANDS: dict[str, Any] = dict(docs_hooks.read_commands())


def render(folder: Path) -> list[Document]:
    """The documents of a kustomization."""
    about = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    assert set(about) <= KNOWN_KEYS, "teach this test what the file uses"
    documents: list[Document] = []
    for name in about["resources"]:
        place = folder / name
        documents += (
            render(place) if place.is_dir() else [each for each in yaml.safe_load_all(place.read_text("utf-8")) if each]
        )
    for patch in about.get("patches", ()):
        change = yaml.safe_load((folder / patch["path"]).read_text("utf-8"))
        (target,) = [each for each in documents if identity(each) == identity(change)]
        documents[documents.index(target)] = merged(target, change)
    return documents


def identity(document: Document) -> tuple[str, str, str]:
    return document["apiVersion"], document["kind"], document["metadata"]["name"]


def merged(old: Any, new: Any, key: str = "") -> Any:
    """A strategic merge: dicts by key, some lists by that of their elements, and everything else replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        result = {name: merged(value, new[name], name) if name in new else value for name, value in old.items()}
        result |= {name: value for name, value in new.items() if name not in old}
        return {name: value for name, value in result.items() if value is not None}
    if key not in MERGE_KEYS or not isinstance(old, list):
        return new
    by, rows = MERGE_KEYS[key], {row[MERGE_KEYS[key]]: row for row in old}
    for row in new:
        if row.get("$patch") == "delete":
            del rows[row[by]]  # KeyError: there is nothing to delete
        else:
            rows[row[by]] = merged(rows.get(row[by], {}), row)
    return list(rows.values())


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def containers(documents: list[Document]) -> Iterator[tuple[str, Document, Document]]:
    """(name of the deployment, pod, container)"""
    for name, deployment in of_kind(documents, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield name, pod, container


@pytest.fixture(params=VARIANTS)
def documents(request: pytest.FixtureRequest) -> list[Document]:
    return render(FOLDER / request.param)


def test_all_folders_are_tested() -> None:
    assert sorted(path.parent.name for path in FOLDER.glob("*/kustomization.yaml")) == sorted(VARIANTS)


def test_the_schemas_of_kubernetes_accept_them(documents: list[Document]) -> None:
    assert {document["kind"] for document in documents} == {
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "NetworkPolicy",
    }
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_schemas_find_a_misspelt_key() -> None:
    page = of_kind(render(FOLDER / "base"), "Deployment")["page"]
    page["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(page, kubernetes_validate.latest_version(), strict=True)


def test_arguments_and_variables_are_options_of_the_commands(documents: list[Document]) -> None:
    for name, _, container in containers(documents):
        flags = [argument.partition("=") for argument in container["args"] if argument.startswith("--")]
        if name in NOT_ODKERAS:
            assert {flag.removeprefix("--") for flag, _, _ in flags} == NOT_ODKERAS[name]
            continue
        command = container["args"][0]
        parameters = {option: each for each in COMMANDS[f"odkeras {command}"].params for option in each.opts}
        declared = {each.flag: each for each in declared_options(command)}
        for flag, _, value in flags:
            assert flag in parameters, flag
            assert parameters[flag].is_flag == (not value), f"{flag} takes {'a' if value else 'no'} value"
            if flag in declared and value:
                declared[flag].check(declared[flag].read(value), flag)
        variables = {row["name"]: row.get("value") for row in container["env"]}
        known = {each.variable: each for each in declared_options(command)}
        for variable, value in variables.items():
            if variable in known and value is not None:
                known[variable].check(known[variable].read(value), variable)
            elif variable.startswith("ODKERAS_"):
                assert variable in known or f'"{variable}"' in (ROOT / "odkeras/pretrained/cache.py").read_text("utf-8")


def test_the_arguments_of_the_page_are_what_it_takes() -> None:
    arguments = next(each for name, _, each in containers(render(FOLDER / "base")) if name == "page")["args"]
    positional = [argument for argument in arguments[1:] if not argument.startswith("--")]
    names = [each.name for each in COMMANDS["odkeras annotate"].params if each.param_type_name == "argument"]
    given = dict(zip(names, positional, strict=False))
    assert len(positional) == len(given)
    rows = {row.declared.name: row.value for row in effective_values(None, "annotate", given, {})}
    assert (rows["ip"], rows["port"], rows["model_name"]) == ("serving", 8501, "odkeras")


def test_ports_and_probes_are_those_of_the_commands(documents: list[Document]) -> None:
    values = {
        flag: value
        for _, _, container in containers(documents)
        for flag, _, value in (argument.partition("=") for argument in container["args"])
    }
    ports = {
        name: {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for name, _, container in containers(documents)
    }
    assert ports == {
        "page": {"http": int(values["--web-port"])},
        "serving": {"http": int(values["--rest_api_port"])},
    } | {"trainer": {}}
    paths = {
        (name, probe["httpGet"]["path"])
        for name, _, container in containers(documents)
        for key, probe in container.items()
        if key.endswith("Probe") and "httpGet" in probe
    }
    assert paths == {("page", HEALTH_PATH), ("serving", f"/v1/models/{values['--model_name']}")}
    assert values["--serving-url"] == f"http://serving:{values['--rest_api_port']}"
    for name, service in of_kind(documents, "Service").items():
        assert [port["targetPort"] for port in service["spec"]["ports"]] == list(ports[name])
    assert of_kind(documents, "Service")["serving"]["spec"]["ports"][0]["port"] == 8501
    # A request by the name of the service has that as its Host header.
    assert values["--allowed-host"] in of_kind(documents, "Service")


def test_what_is_referred_to_exists(documents: list[Document]) -> None:
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"] for name, each in of_kind(documents, "Deployment").items()
    }
    for name, deployment in of_kind(documents, "Deployment").items():
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    for name, service in of_kind(documents, "Service").items():
        assert service["spec"]["selector"] == labels[name]
    policies = of_kind(documents, "NetworkPolicy")
    assert set(policies) == set(labels)
    for name, policy in policies.items():
        assert policy["spec"]["podSelector"]["matchLabels"] == labels[name]
        for rule in policy["spec"].get("ingress", ()):
            for source in rule.get("from", ()):
                assert source["podSelector"]["matchLabels"] in labels.values()
    claims = set(of_kind(documents, "PersistentVolumeClaim"))
    for _, pod, container in containers(documents):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {"claimName": "project"})["claimName"] in claims


def test_containers_are_confined(documents: list[Document]) -> None:
    for name, pod, container in containers(documents):
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"], name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert (
            set(container["resources"]["requests"]) >= {"cpu", "memory"}
            and "memory" in container["resources"]["limits"]
        )
        assert {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}["tmp"] is False


def test_one_process_has_the_project() -> None:
    """A second page with SQLite, or a second trainer, would end with a lock's message."""
    for name, deployment in of_kind(render(FOLDER / "base"), "Deployment").items():
        assert deployment["spec"]["replicas"] == 1
        assert (deployment["spec"].get("strategy") == {"type": "Recreate"}) == (name != "serving")


def test_the_patches_change_what_they_say() -> None:
    trainer = next(each for name, _, each in containers(render(FOLDER / "gpu")) if name == "trainer")
    assert trainer["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    assert trainer["args"][-1] == "--strategy=mirrored"
    page, pod = next((each, pod) for name, pod, each in containers(render(FOLDER / "postgres")) if name == "page")
    database = next(row for row in page["env"] if row["name"] == "ODKERAS_DB")
    assert database == {"name": "ODKERAS_DB", "valueFrom": {"secretKeyRef": {"name": "odkeras-database", "key": "url"}}}
    assert [volume["name"] for volume in pod["volumes"]] == ["project", "tmp"]
    documents = render(FOLDER / "postgres")
    assert of_kind(documents, "Deployment")["page"]["spec"]["replicas"] == 3
    assert of_kind(documents, "Deployment")["page"]["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert of_kind(documents, "Service")["page"]["spec"]["sessionAffinity"] == "ClientIP"


def test_the_image_is_made_as_the_readme_says() -> None:
    lines = (FOLDER / "Containerfile").read_text("utf-8")
    assert "make install" in lines and 'ENTRYPOINT ["odkeras"]' in lines
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = lines.partition("EXTRAS=")[2].split()[0].split(",")
    assert set(extras) <= set(setup["options.extras_require"])
    user = lines.partition("USER ")[2].split()[0].split(":")
    for _, pod, _ in containers(render(FOLDER / "base")):
        assert [str(pod["securityContext"][key]) for key in ("runAsUser", "runAsGroup")] == user
