"""The official Python client against a cluster: what operators written with it do.

Its kubeconfig is in KUBECONFIG. Prints the name of each step that it has done; an error ends it.
"""

import json
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

config.load_kube_config()
CORE = client.CoreV1Api()
APPS = client.AppsV1Api()
SPACE = "python"
PATIENCE = 60


def until(what, ask):
    """Asks until the answer is true."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)


def expect(code, work):
    """The request has to be refused with this code."""
    try:
        work()
    except ApiException as error:
        assert error.status == code, f"{error.status} and not {code}: {error.body}"
        return error
    raise AssertionError(f"not refused with {code}")


def names(items):
    return sorted(item.metadata.name for item in items)


def create():
    CORE.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE)))
    expect(409, lambda: CORE.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE))))
    container = client.V1Container(name="main", command=["holdfast", "web"], image="none", env=[
        client.V1EnvVar(name="POD_IP", value_from=client.V1EnvVarSource(
            field_ref=client.V1ObjectFieldSelector(field_path="status.podIP")))])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(runtime_class_name="host", containers=[container]))
    deployment = client.V1Deployment(
        metadata=client.V1ObjectMeta(name="web"),
        spec=client.V1DeploymentSpec(
            replicas=2, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template))
    made = APPS.create_namespaced_deployment(SPACE, deployment)
    assert made.metadata.uid and made.spec.strategy.type == "RollingUpdate"
    wrong = client.V1Deployment(metadata=client.V1ObjectMeta(name="Wrong"), spec=deployment.spec)
    error = expect(422, lambda: APPS.create_namespaced_deployment(SPACE, wrong))
    assert "metadata.name" in error.body, error.body
    until("the deployment", lambda: APPS.read_namespaced_deployment("web", SPACE).status.ready_replicas == 2)


def watch_changes():
    start = CORE.list_namespaced_config_map(SPACE).metadata.resource_version
    CORE.create_namespaced_config_map(SPACE, {"metadata": {"name": "seen"}, "data": {"k": "a"}})
    CORE.patch_namespaced_config_map("seen", SPACE, {"data": {"k": "b"}})
    CORE.delete_namespaced_config_map("seen", SPACE)
    seen = []
    watcher = watch.Watch()
    changes = watcher.stream(CORE.list_namespaced_config_map, SPACE, resource_version=start, timeout_seconds=PATIENCE)
    for event in changes:
        if event["object"].metadata.name == "seen":
            seen.append((event["type"], event["object"].data["k"]))
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == [("ADDED", "a"), ("MODIFIED", "b"), ("DELETED", "b")], seen


def patch():
    APPS.patch_namespaced_deployment("web", SPACE, {"metadata": {"labels": {"tier": "front"}}})
    body = [{"op": "add", "path": "/metadata/annotations", "value": {"by": "json-patch"}}]
    patched = APPS.patch_namespaced_deployment("web", SPACE, body)
    assert patched.metadata.labels["tier"] == "front" and patched.metadata.annotations["by"] == "json-patch"
    APPS.patch_namespaced_deployment_scale("web", SPACE, {"spec": {"replicas": 3}})
    until("three pods", lambda: APPS.read_namespaced_deployment("web", SPACE).status.ready_replicas == 3)


def apply():
    def applied(manager, data, force=False):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
        # As text: older versions of the client know no other body of this type.
        answer, _, _ = client.ApiClient().call_api(
            f"/api/v1/namespaces/{SPACE}/configmaps/applied", "PATCH", body=json.dumps(body),
            query_params=[("fieldManager", manager), ("force", str(force).lower())],
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            auth_settings=["BearerToken"], response_type="V1ConfigMap")
        return answer

    applied("one", {"a": "1", "b": "1"})
    error = expect(409, lambda: applied("two", {"a": "2"}))
    assert json.loads(error.body)["details"]["causes"][0]["reason"] == "FieldManagerConflict", error.body
    assert applied("two", {"a": "2"}, force=True).data == {"a": "2", "b": "1"}
    assert applied("one", {}).data == {"a": "2"}


def discover():
    found = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="apps/v1", kind="Deployment")
    assert found.name == "deployments" and names(found.get(namespace=SPACE).items) == ["web"]


def pages():
    for number in range(25):
        CORE.create_namespaced_config_map(SPACE, {"metadata": {"name": f"page-{number:02}", "labels": {"l": "page"}}})
    found, token, rounds = [], None, 0
    while True:
        page = CORE.list_namespaced_config_map(SPACE, label_selector="l=page", limit=10, _continue=token)
        found += names(page.items)
        rounds += 1
        token = page.metadata._continue
        if rounds == 1:
            # The pages are of one moment: what is made meanwhile is not in them.
            CORE.create_namespaced_config_map(SPACE, {"metadata": {"name": "page-99", "labels": {"l": "page"}}})
        if not token:
            break
    assert (rounds, found) == (3, [f"page-{number:02}" for number in range(25)]), (rounds, found)
    expect(400, lambda: CORE.list_namespaced_config_map(SPACE, limit=1, _continue="nonsense"))


def elect():
    led, stopped = [], []

    def candidate(name, renews):
        lock = ConfigMapLock("leader", SPACE, name)
        if not renews:
            # As one that has lost its network.
            lock.update = lambda *_: False
        leaderelection.LeaderElection(electionconfig.Config(
            lock, lease_duration=3, renew_deadline=2, retry_period=1,
            onstarted_leading=lambda: led.append(name), onstopped_leading=lambda: stopped.append(name))).run()

    threading.Thread(target=candidate, args=("first", False), daemon=True).start()
    until("the first leader", lambda: led == ["first"])
    threading.Thread(target=candidate, args=("second", True), daemon=True).start()
    until("the first leader's end", lambda: stopped == ["first"])
    until("the second leader", lambda: led == ["first", "second"])


def run_commands():
    pod = names(CORE.list_namespaced_pod(SPACE, label_selector="app=web").items)[0]
    connect = CORE.connect_get_namespaced_pod_exec
    out = stream(connect, pod, SPACE, command=["sh", "-c", "echo to-out; echo to-err >&2"],
                 stderr=True, stdin=False, stdout=True, tty=False)
    assert "to-out" in out and "to-err" in out, out
    session = stream(connect, pod, SPACE, command=["sh"], stderr=True, stdin=True, stdout=True, tty=False,
                     _preload_content=False)
    session.write_stdin("echo hello $((40 + 2))\n")
    assert session.readline_stdout(timeout=PATIENCE) == "hello 42"
    session.write_stdin("exit 3\n")
    session.run_forever(timeout=PATIENCE)
    assert session.returncode == 3, session.returncode
    error = None
    try:
        stream(connect, pod, SPACE, command=["true"], container="other", stdout=True)
    except ApiException as caught:
        error = caught
    assert error is not None and "400" in str(error), error


def forward_ports():
    pod = names(CORE.list_namespaced_pod(SPACE, label_selector="app=web").items)[0]
    forwarded = portforward(CORE.connect_get_namespaced_pod_portforward, pod, SPACE, ports="8080")
    socket = forwarded.socket(8080)
    socket.setblocking(True)
    socket.settimeout(PATIENCE)
    socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while pod.encode() not in answer:
        more = socket.recv(4096)
        assert more, answer
        answer += more
    socket.close()
    assert forwarded.error(8080) is None, forwarded.error(8080)


def read_logs():
    CORE.create_namespaced_pod(SPACE, {"metadata": {"name": "talker"}, "spec": {
        "runtimeClassName": "host", "restartPolicy": "Never",
        "containers": [{"name": "main", "image": "none", "command": ["sh", "-c", "echo one; echo two"]}]}})
    until("the end", lambda: CORE.read_namespaced_pod("talker", SPACE).status.phase == "Succeeded")
    assert CORE.read_namespaced_pod_log("talker", SPACE).split() == ["one", "two"]


def delete():
    APPS.delete_namespaced_deployment("web", SPACE, propagation_policy="Foreground")
    until("everything to be gone", lambda: not CORE.list_namespaced_pod(SPACE, label_selector="app=web").items)
    CORE.delete_namespace(SPACE)


STEPS = [create, watch_changes, patch, apply, discover, pages, elect, run_commands, forward_ports, read_logs, delete]
for step in STEPS:
    step()
    print(step.__name__, flush=True)
