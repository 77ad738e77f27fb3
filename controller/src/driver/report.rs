//! Tells the queue service about a Job and its Pods, so that whoever looks at the queue sees them.
//!
//! Nothing depends on it: a report that is lost is told again, with the next change or later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gangline_protocol::limits::{JOB_CONDITIONS_MAX, JOB_PODS_MAX, JOB_TEXT_BYTES_MAX};
use gangline_protocol::{ConditionReport, JobReport, PodReport, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::{Instant, timeout};

use super::cluster::lock;
use super::service::QueueService;
use crate::api::pod::{ContainerStatus, PodPhase};
use crate::api::{Job, Pod, Uid};
use crate::plan::queue::QueueSpec;

/// Least time between two reports of one Job.
const STEP: Duration = Duration::from_millis(500);

/// How long a report may take: nothing waits for it but the next look at the Job.
const PATIENCE: Duration = Duration::from_secs(2);

/// After how long a report is told again that has not changed: the service keeps it in memory.
const AGAIN: Duration = Duration::from_secs(30);

/// What was told of each Job.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<HashMap<Uid, Told>>);

#[derive(Debug)]
struct Told {
    report: JobReport,
    at: Instant,
    heard: bool,
}

impl Reports {
    /// Forgets a Job that is gone.
    pub(super) fn forget(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Tells the service how a Job and its Pods are; returns when to do so again, if there is
    /// something to say that would come too soon now.
    pub(super) async fn tell<Q: QueueService>(
        &self,
        service: &Q,
        job: &Job,
        pods: &[Arc<Pod>],
    ) -> Option<Duration> {
        let spec = QueueSpec::of(job).ok().flatten()?;
        let report = {
            let mut told = lock(&self.0);
            let before = told.get(job.uid());
            let report = report(job, pods, before.map(|told| &told.report));
            if let Some(before) = before {
                let since = before.at.elapsed();
                if before.heard && before.report == report && since < AGAIN {
                    return None;
                }
                if since < STEP {
                    return Some(STEP - since);
                }
            }
            let at = Instant::now();
            let news = Told {
                report: report.clone(),
                at,
                heard: false,
            };
            told.insert(job.uid().to_owned(), news);
            report
        };
        let heard = match timeout(PATIENCE, service.report(&spec.queue, &report)).await {
            Ok(Ok(())) => true,
            // It is told with the next look at the Job.
            Ok(Err(_)) | Err(_) => false,
        };
        if let Some(told) = lock(&self.0).get_mut(job.uid()) {
            told.heard = heard;
        }
        None
    }
}

fn report(job: &Job, pods: &[Arc<Pod>], before: Option<&JobReport>) -> JobReport {
    let mut all: Vec<PodReport> = pods.iter().map(|pod| of_pod(pod)).collect();
    // Pods whose objects are gone are still part of the story.
    let gone = before
        .into_iter()
        .flat_map(|before| &before.pods)
        .filter(|known| all.iter().all(|pod| pod.uid != known.uid))
        .map(of_gone)
        .collect::<Vec<_>>();
    all.extend(gone);
    let order = |pod: &PodReport| (pod.created_at, pod.name.clone());
    all.sort_by_key(order);
    let surplus = all.len().saturating_sub(JOB_PODS_MAX);
    // What is older than the first that was told then was left out then already.
    let first = before.and_then(|before| before.pods.first()).map(order);
    let newly = all
        .drain(..surplus)
        .filter(|pod| first.as_ref().is_none_or(|first| order(pod) >= *first))
        .count();
    let omitted = before.map_or(0, |before| before.pods_omitted) + newly as u64;
    let status = &job.status;
    let number = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok());
    let conditions = status.conditions.iter().take(JOB_CONDITIONS_MAX);
    JobReport {
        namespace: job.namespace().into(),
        name: job.name().into(),
        uid: job.uid().into(),
        created_at: job.metadata.creation_timestamp.as_ref().map(time),
        parallelism: u32::try_from(job.parallelism()).ok(),
        suspended: job.is_suspended(),
        active: number(status.active).unwrap_or(0),
        succeeded: number(status.succeeded).unwrap_or(0),
        failed: number(status.failed).unwrap_or(0),
        conditions: conditions
            .map(|condition| ConditionReport {
                type_: condition.type_.as_str().into(),
                status: word(&condition.status),
                reason: text(&condition.reason),
                message: text(&condition.message),
            })
            .collect(),
        pods: all,
        pods_omitted: omitted,
    }
}

fn of_gone(pod: &PodReport) -> PodReport {
    let mut pod = pod.clone();
    if pod.ended_at.is_none() {
        let now = jiff::Timestamp::now().as_millisecond();
        pod.ended_at = Some(Timestamp(u64::try_from(now).unwrap_or(0)));
    }
    pod
}

fn of_pod(pod: &Pod) -> PodReport {
    let containers = &pod.status.container_statuses;
    let ended = || {
        containers
            .iter()
            .filter_map(|status| status.state.terminated.as_ref())
    };
    let failed = ended().find(|end| end.exit_code != 0);
    let deciding = failed.or_else(|| ended().next());
    let is_over = pod.has_succeeded() || pod.status.phase == Some(PodPhase::Failed);
    let waits = containers
        .iter()
        .find_map(|status| status.state.waiting.as_ref());
    let reason = match deciding {
        Some(end) if is_over && end.exit_code != 0 => text(&end.reason),
        _ => waits.and_then(|waits| text(&waits.reason)),
    };
    PodReport {
        name: pod.name().into(),
        uid: pod.uid().into(),
        phase: pod.status.phase.as_ref().map_or("Pending".into(), word),
        created_at: pod.metadata.creation_timestamp.as_ref().map(time),
        started_at: containers.iter().filter_map(started).min(),
        ended_at: is_over
            .then(|| {
                ended()
                    .filter_map(|end| end.finished_at.as_ref())
                    .map(time)
                    .max()
            })
            .flatten(),
        deleted_at: pod.metadata.deletion_timestamp.as_ref().map(time),
        exit_code: deciding.filter(|_| is_over).map(|end| end.exit_code),
        reason,
    }
}

/// Returns when a container first started, as far as it is still known.
fn started(status: &ContainerStatus) -> Option<Timestamp> {
    let states = [&status.last_state, &status.state].into_iter();
    let times = states.flat_map(|state| {
        let running = state.running.as_ref().map(|run| &run.started_at);
        let ended = state.terminated.as_ref().map(|end| &end.started_at);
        [running, ended].into_iter().flatten().flatten()
    });
    times.map(time).min()
}

fn time(time: &Time) -> Timestamp {
    Timestamp(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
}

/// Returns the name of a unit variant, as Kubernetes writes it.
fn word(value: &impl serde::Serialize) -> Box<str> {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().into()
}

fn text(text: &str) -> Option<Box<str>> {
    let end = text.floor_char_boundary(JOB_TEXT_BYTES_MAX);
    (!text.is_empty()).then(|| text[..end].into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job() -> Job {
        let job = json!({
            "metadata": {"name": "pi", "namespace": "default", "uid": "j"},
            "spec": {"parallelism": 2},
            "status": {"active": 1, "failed": 1},
        });
        serde_json::from_value(job).unwrap()
    }

    fn pod(name: &str, second: u32, status: Value) -> Arc<Pod> {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let pod = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created},
            "status": status,
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_is_told_with_its_times_and_how_it_ended() {
        let end = json!({"exitCode": 137, "reason": "OOMKilled",
            "startedAt": "2026-01-01T00:00:02Z", "finishedAt": "2026-01-01T00:00:09Z"});
        let status = json!({"phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": end}}]});
        let running = json!({"phase": "Running", "containerStatuses":
            [{"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:04Z"}}}]});
        let pods = [pod("b", 3, running), pod("a", 1, status)];
        let told = report(&job(), &pods, None);
        assert_eq!(
            (told.active, told.failed, told.parallelism),
            (1, 1, Some(2))
        );
        let [a, b] = &told.pods[..] else {
            panic!("{told:?}")
        };
        assert_eq!(
            (&*a.name, &*a.phase, a.exit_code),
            ("a", "Failed", Some(137))
        );
        assert_eq!(a.reason.as_deref(), Some("OOMKilled"));
        let at = |time: Option<Timestamp>| time.unwrap().to_string()[17..19].to_owned();
        assert_eq!(
            (at(a.started_at), at(a.ended_at)),
            ("02".into(), "09".into())
        );
        assert_eq!(
            (&*b.phase, at(b.started_at), b.ended_at),
            ("Running", "04".into(), None)
        );
    }

    #[test]
    fn a_pod_whose_object_is_gone_stays_in_the_story_and_the_newest_are_kept() {
        let first = report(&job(), &[pod("a", 1, json!({"phase": "Running"}))], None);
        let then = report(&job(), &[pod("b", 2, json!({}))], Some(&first));
        let names: Vec<&str> = then.pods.iter().map(|pod| &*pod.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(then.pods[0].ended_at.is_some());
        assert_eq!(&*then.pods[1].phase, "Pending");
        let many: Vec<_> = (0..JOB_PODS_MAX)
            .map(|number| pod(&format!("c{number:03}"), 5, json!({})))
            .collect();
        let full = report(&job(), &many, Some(&then));
        assert_eq!((full.pods.len(), full.pods_omitted), (JOB_PODS_MAX, 2));
        assert!(full.out_of_bounds().is_none());
        let same = report(&job(), &many, Some(&full));
        assert_eq!(same, full);
    }
}
