//! Jobs through the cluster's API, run by the real controller and the real kubelet.

use futures::StreamExt;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use crate::world::{Cluster, in_time, job};

fn reason(status: &JobStatus, type_: &str) -> String {
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions
        .find(|condition| condition.type_ == type_)
        .unwrap();
    condition.reason.clone().unwrap()
}

pub(crate) async fn jobs_of_every_kind_come_to_their_end(cluster: &Cluster) {
    cluster.create("one", "echo hello", json!({})).await;
    cluster
        .create(
            "fixed",
            "true",
            json!({ "completions": 6, "parallelism": 3 }),
        )
        .await;
    let indexed = json!({
        "completions": 4, "parallelism": 2, "completionMode": "Indexed",
    });
    cluster
        .create("indexed", "echo $JOB_COMPLETION_INDEX", indexed)
        .await;
    cluster
        .create("queue", "true", json!({ "parallelism": 3 }))
        .await;
    cluster
        .create("bad", "exit 3", json!({ "backoffLimit": 0 }))
        .await;
    cluster
        .create(
            "late",
            "exec sleep 1000",
            json!({ "activeDeadlineSeconds": 1 }),
        )
        .await;

    let status = cluster.until("one", "Complete").await;
    assert_eq!((status.succeeded, status.active), (Some(1), Some(0)));
    let pod = cluster
        .pods_of("one")
        .await
        .remove(0)
        .metadata
        .name
        .unwrap();
    let log = cluster.pods.logs(&pod, &LogParams::default()).await;
    assert_eq!(log.unwrap(), "hello\n");

    let status = cluster.until("fixed", "Complete").await;
    assert_eq!(status.succeeded, Some(6));
    let pods = cluster.pods_of("fixed").await;
    assert_eq!(pods.len(), 6);
    assert!(pods.iter().all(|pod| pod.metadata.finalizers.is_none()));

    let status = cluster.until("indexed", "Complete").await;
    assert_eq!(status.completed_indexes.as_deref(), Some("0-3"));
    let mut logs = Vec::new();
    for pod in cluster.pods_of("indexed").await {
        let name = pod.metadata.name.unwrap();
        let log = cluster.pods.logs(&name, &LogParams::default()).await;
        logs.push(log.unwrap());
    }
    logs.sort();
    assert_eq!(logs, ["0\n", "1\n", "2\n", "3\n"]);

    let status = cluster.until("queue", "Complete").await;
    assert_eq!(
        (status.succeeded, cluster.pods_of("queue").await.len()),
        (Some(3), 3)
    );

    let status = cluster.until("bad", "Failed").await;
    assert_eq!(
        (status.failed, reason(&status, "Failed")),
        (Some(1), "BackoffLimitExceeded".into())
    );

    let status = cluster.until("late", "Failed").await;
    assert_eq!(reason(&status, "Failed"), "DeadlineExceeded");

    let events = Api::<Event>::default_namespaced(cluster.client.clone());
    let of_job = ListParams::default().fields("involvedObject.name=fixed,reason=SuccessfulCreate");
    let said = async {
        while events.list(&of_job).await.unwrap().items.len() < 6 {
            tokio::task::yield_now().await;
        }
    };
    in_time("events of six creations", said).await;
    println!("ok jobs of every kind come to their end");
}

pub(crate) async fn a_work_queue_makes_no_pods_after_the_first_success(cluster: &Cluster) {
    // The first to come ends well, the others fail after it and are not replaced.
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    let script = format!(
        "if mkdir {0} 2>/dev/null; then exit 0; fi; exit 1",
        first.display()
    );
    cluster
        .create(
            "first",
            &script,
            json!({ "parallelism": 3, "backoffLimit": 50 }),
        )
        .await;
    let status = cluster.until("first", "Complete").await;
    assert_eq!(status.succeeded, Some(1));
    println!("ok a work queue makes no Pods after the first success");
}

pub(crate) async fn a_deleted_job_takes_its_pods_along(cluster: &Cluster) {
    for (name, params) in [
        ("background", DeleteParams::background()),
        ("foreground", DeleteParams::foreground()),
    ] {
        cluster
            .create(name, "exec sleep 1000", json!({ "parallelism": 2 }))
            .await;
        let active = |job: Option<&Job>| {
            job.and_then(|job| job.status.as_ref()?.ready)
                .is_some_and(|ready| ready == 2)
        };
        in_time(
            "two ready",
            Box::pin(await_condition(cluster.jobs.clone(), name, active)),
        )
        .await
        .unwrap();
        cluster.jobs.delete(name, &params).await.unwrap();
        let gone = async {
            while !cluster.pods_of(name).await.is_empty()
                || cluster.jobs.get_opt(name).await.unwrap().is_some()
            {
                tokio::task::yield_now().await;
            }
        };
        in_time("Job and Pods are gone", gone).await;
    }
    println!("ok a deleted Job takes its Pods along");
}

pub(crate) async fn an_orphaned_pod_stays(cluster: &Cluster) {
    cluster.create("orphan", "true", json!({})).await;
    cluster.until("orphan", "Complete").await;
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    cluster.jobs.delete("orphan", &orphan).await.unwrap();
    let gone = async {
        while cluster.jobs.get_opt("orphan").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    in_time("the Job is gone", gone).await;
    let pods = cluster.pods_of("orphan").await;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].metadata.owner_references, None);
    println!("ok an orphaned Pod stays");
}

#[track_caller]
fn status_of<T: std::fmt::Debug>(result: kube::Result<T>) -> kube::core::Status {
    match result.unwrap_err() {
        kube::Error::Api(status) => *status,
        error => panic!("{error}"),
    }
}

pub(crate) async fn an_evicted_pod_is_no_failure_of_its_job(cluster: &Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let ignored = json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    let ignoring = json!({ "backoffLimit": 0, "podFailurePolicy": { "rules": [ignored] } });
    cluster.create("evicted", &script, ignoring).await;
    let first = in_time("its Pod runs", async {
        loop {
            let pods = cluster.pods_of("evicted").await;
            if let Some(pod) = pods.into_iter().find(|pod| {
                pod.status
                    .as_ref()
                    .is_some_and(|status| status.phase.as_deref() == Some("Running"))
            }) {
                break pod.metadata.name.unwrap();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let evicted = cluster.pods.evict(&first, &EvictParams::default()).await;
    evicted.unwrap();
    let seen = cluster.pods.get_opt(&first).await.unwrap();
    if let Some(pod) = seen {
        let mut conditions = pod.status.unwrap().conditions.into_iter().flatten();
        let condition = conditions
            .find(|condition| condition.type_ == "DisruptionTarget")
            .unwrap();
        assert_eq!(condition.reason.as_deref(), Some("EvictionByEvictionAPI"));
        assert!(pod.metadata.deletion_timestamp.is_some());
    }
    std::fs::write(&go, "").unwrap();
    let status = cluster.until("evicted", "Complete").await;
    assert_eq!((status.succeeded, status.failed.unwrap_or(0)), (Some(1), 0));
    println!("ok an evicted pod is no failure of its job");
}

pub(crate) async fn jobs_are_judged_by_those_who_run_the_cluster(cluster: &Cluster) {
    let refusal = |name: &str| {
        format!(
            "Job.batch {name:?} is invalid: metadata.annotations[forbidden]: Invalid value: \"x\": must not be there"
        )
    };
    let mut wrong = job("judged", "true", &json!({ "suspend": true }));
    wrong.metadata.annotations = Some([("forbidden".into(), "x".into())].into());
    let made = cluster.jobs.create(&PostParams::default(), &wrong).await;
    let status = status_of(made);
    assert_eq!((status.code, status.message), (422, refusal("judged")));
    assert_eq!(
        status.details.unwrap().causes[0].field,
        "metadata.annotations[forbidden]"
    );

    wrong.metadata.annotations = None;
    let right = cluster.jobs.create(&PostParams::default(), &wrong).await;
    let annotate = json!({ "metadata": { "annotations": { "forbidden": "x" } } });
    let merge = Patch::Merge(&annotate);
    let parameters = PatchParams::default();
    let status = status_of(cluster.jobs.patch("judged", &parameters, &merge).await);
    assert_eq!((status.code, status.message), (422, refusal("judged")));
    let mut replaced = right.unwrap();
    // The controller writes too.
    replaced.metadata.resource_version = None;
    replaced.metadata.annotations = Some([("forbidden".into(), "x".into())].into());
    let replace = cluster
        .jobs
        .replace("judged", &PostParams::default(), &replaced)
        .await;
    assert_eq!(status_of(replace).message, refusal("judged"));
    let applied = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": annotate["metadata"],
    });
    let status = status_of(
        cluster
            .jobs
            .patch(
                "judged",
                &PatchParams::apply("somebody"),
                &Patch::Apply(&applied),
            )
            .await,
    );
    assert_eq!(status.code, 422, "{status:?}");
    cluster
        .jobs
        .delete("judged", &DeleteParams::default())
        .await
        .unwrap();
    println!("ok jobs are judged by those who run the cluster");
}

pub(crate) async fn bad_requests_are_refused_with_the_field(cluster: &Cluster) {
    let create = PostParams::default();
    let bad = job("bad name", "true", &json!({}));
    let status = status_of(cluster.jobs.create(&create, &bad).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let bad = job("bad-numbers", "true", &json!({ "completions": -1 }));
    let status = status_of(cluster.jobs.create(&create, &bad).await);
    assert_eq!(
        status.message,
        "Job.batch \"bad-numbers\" is invalid: spec.completions: Invalid value: -1: must be greater than or equal to 0"
    );
    assert_eq!(status.details.unwrap().causes[0].field, "spec.completions");

    let body = json!({ "metadata": { "name": "x" }, "spec": { "paralelism": 1, "template": {} } });
    let request =
        http::Request::post("/apis/batch/v1/namespaces/default/jobs?fieldValidation=Strict")
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap();
    let status = status_of(cluster.client.request::<Job>(request).await);
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            400,
            "Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.paralelism\""
        )
    );
    let status = status_of(cluster.jobs.get("nobody").await);
    assert_eq!(
        (status.code, status.message.as_str()),
        (404, "jobs.batch \"nobody\" not found")
    );

    let suspended = json!({ "suspend": true });
    let made = cluster.create("fixed-fields", "true", suspended).await;
    let status = status_of(
        cluster
            .jobs
            .create(&create, &job("fixed-fields", "true", &json!({})))
            .await,
    );
    assert_eq!(status.reason, "AlreadyExists");
    let patch = Patch::Merge(json!({ "spec": { "completions": 5 } }));
    let status = status_of(
        cluster
            .jobs
            .patch("fixed-fields", &PatchParams::default(), &patch)
            .await,
    );
    assert_eq!(
        status.message,
        "Job.batch \"fixed-fields\" is invalid: spec.completions: Invalid value: 5: field is immutable"
    );
    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": "1" } }));
    let status = status_of(
        cluster
            .jobs
            .patch("fixed-fields", &PatchParams::default(), &patch)
            .await,
    );
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let patch = Patch::Strategic(json!({ "metadata": { "labels": { "a": "b" } } }));
    let patched = cluster
        .jobs
        .patch("fixed-fields", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(patched.metadata.labels.unwrap()["a"], "b");
    assert_eq!(
        (made.metadata.generation, patched.metadata.generation),
        (Some(1), Some(1))
    );
    println!("ok bad requests are refused with the field");
}

pub(crate) async fn a_watch_goes_on_where_a_list_was_read(cluster: &Cluster) {
    for config in [
        watcher::Config::default().page_size(2),
        watcher::Config::default().streaming_lists(),
    ] {
        let secrets = Api::<k8s_openapi::api::core::v1::ConfigMap>::default_namespaced(
            cluster.client.clone(),
        );
        let map =
            |name: &str| serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        for name in ["a", "b", "c"] {
            secrets
                .create(&PostParams::default(), &map(name))
                .await
                .unwrap();
        }
        let mut seen = std::pin::pin!(watcher(secrets.clone(), config).applied_objects());
        let mut names = Vec::new();
        for _ in 0..3 {
            let object = in_time("a listed object", seen.next())
                .await
                .unwrap()
                .unwrap();
            names.push(object.metadata.name.unwrap());
        }
        assert_eq!(names, ["a", "b", "c"]);
        secrets
            .create(&PostParams::default(), &map("d"))
            .await
            .unwrap();
        let object = in_time("a new object", seen.next()).await.unwrap().unwrap();
        assert_eq!(object.metadata.name.as_deref(), Some("d"));
        let all = ListParams::default();
        secrets
            .delete_collection(&DeleteParams::default(), &all)
            .await
            .unwrap();
        assert!(secrets.list(&all).await.unwrap().items.is_empty());
    }
    println!("ok a watch goes on where a list was read");
}

pub(crate) async fn a_finished_job_goes_when_its_time_is_over(cluster: &Cluster) {
    let spec = json!({ "ttlSecondsAfterFinished": 0 });
    cluster.create("short-lived", "true", spec).await;
    let gone = async {
        while cluster.jobs.get_opt("short-lived").await.unwrap().is_some()
            || !cluster.pods_of("short-lived").await.is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    in_time("Job and Pod are gone", gone).await;
    println!("ok a finished Job goes when its time is over");
}
