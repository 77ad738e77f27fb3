"""What people do with the `kubernetes` package, against the cluster of $KUBECONFIG; fails at the first thing that differs."""

import itertools

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

config.load_kube_config()
batch, core = client.BatchV1Api(), client.CoreV1Api()
NAMESPACE = "default"
TIMEOUT = 120


def job(name, script, **spec):
    container = client.V1Container(name="main", image="none", command=["sh", "-c", script])
    pod = client.V1PodSpec(restart_policy="Never", containers=[container])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"by": "python"}), spec=pod
    )
    return client.V1Job(
        metadata=client.V1ObjectMeta(name=name),
        spec=client.V1JobSpec(template=template, **spec),
    )


def refused(status, reason, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert (error.status, error.reason) == (status, reason), error
        return error.body
    raise AssertionError(f"{call.__name__} was not refused")


# Creates.
made = batch.create_namespaced_job(NAMESPACE, job("py", "echo one; echo two", suspend=True))
assert made.metadata.uid and made.spec.parallelism == 1, made
body = refused(409, "Conflict", batch.create_namespaced_job, NAMESPACE, job("py", "true"))
assert '"AlreadyExists"' in body, body
body = refused(
    422, "Unprocessable Entity",
    batch.create_namespaced_job, NAMESPACE, job("bad", "true", parallelism=-1),
)
assert "spec.parallelism: Invalid value: -1" in body, body

# Lists, in pages too.
for number in range(3):
    batch.create_namespaced_job(NAMESPACE, job(f"page-{number}", "true", suspend=True))
names = {item.metadata.name for item in batch.list_namespaced_job(NAMESPACE).items}
assert names == {"py", "page-0", "page-1", "page-2"}, names
paged, token = [], None
while True:
    page = batch.list_namespaced_job(NAMESPACE, limit=2, _continue=token)
    paged += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
assert sorted(paged) == sorted(names), paged
assert {item.metadata.name for item in batch.list_job_for_all_namespaces().items} == names

# Patches and replaces.
patched = batch.patch_namespaced_job(
    "py", NAMESPACE, {"metadata": {"labels": {"tier": "one"}}, "spec": {"activeDeadlineSeconds": 100}}
)
assert patched.metadata.labels["tier"] == "one" and patched.spec.active_deadline_seconds == 100
stale = batch.read_namespaced_job("py", NAMESPACE)
found = batch.list_namespaced_job(NAMESPACE, label_selector="tier=one")
assert [item.metadata.name for item in found.items] == ["py"]
patch = [{"op": "replace", "path": "/metadata/labels/tier", "value": "two"}]
assert batch.patch_namespaced_job("py", NAMESPACE, patch).metadata.labels["tier"] == "two"
refused(409, "Conflict", batch.replace_namespaced_job, "py", NAMESPACE, stale)

# Watches from where the list was read, while the Job runs.
version = batch.list_namespaced_job(NAMESPACE).metadata.resource_version
batch.patch_namespaced_job("py", NAMESPACE, {"spec": {"suspend": False}})
events = watch.Watch()
seen = []
for event in events.stream(
    batch.list_namespaced_job, NAMESPACE,
    field_selector="metadata.name=py", resource_version=version, timeout_seconds=TIMEOUT,
):
    seen.append(int(event["object"].metadata.resource_version))
    assert event["type"] == "MODIFIED", event["type"]
    conditions = event["object"].status.conditions or []
    if any(c.type == "Complete" and c.status == "True" for c in conditions):
        events.stop()
else:
    status = batch.read_namespaced_job_status("py", NAMESPACE).status
    assert status.succeeded == 1, status
assert seen and all(a < b for a, b in itertools.pairwise(seen)), seen

# Reads logs.
[pod] = core.list_namespaced_pod(NAMESPACE, label_selector="job-name=py,by=python").items
name = pod.metadata.name
assert pod.status.phase == "Succeeded", pod.status
assert core.read_namespaced_pod_log(name, NAMESPACE) == "one\ntwo\n"
assert core.read_namespaced_pod_log(name, NAMESPACE, tail_lines=1) == "two\n"
lines = list(watch.Watch().stream(core.read_namespaced_pod_log, name, NAMESPACE))
assert lines == ["one", "two"], lines
reasons = {event.reason for event in core.list_namespaced_event(NAMESPACE).items}
assert {"SuccessfulCreate", "Completed"} <= reasons, reasons

# Has nothing run within a container.
body = refused(405, "Method Not Allowed", core.connect_get_namespaced_pod_exec, name, NAMESPACE, command=["true"])
assert "exec is not served here" in body, body

# Deletes.
version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
batch.delete_namespaced_job("py", NAMESPACE, propagation_policy="Foreground")
for event in watch.Watch().stream(
    core.list_namespaced_pod, NAMESPACE,
    label_selector="job-name=py", resource_version=version, timeout_seconds=TIMEOUT,
):
    if event["type"] == "DELETED":
        break
else:
    raise AssertionError("the Pod stays")
batch.delete_collection_namespaced_job(NAMESPACE)
refused(404, "Not Found", batch.read_namespaced_job, "page-0", NAMESPACE)
refused(404, "Not Found", client.AppsV1Api().list_namespaced_deployment, NAMESPACE)
assert client.VersionApi().get_code().minor == "33"
print("all as on a cluster")
