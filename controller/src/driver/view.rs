//! What is seen of a Job's queue. Read after the Pods: what ended them is then in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, stream};
use gangline_protocol::{Json, QueueName};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::value::RawValue;

use super::memory::Memory;
use super::service::{Fill, QueueService, ServiceError};
use super::sync::CALLS_AT_A_TIME;
use crate::api::{Job, Pod, Uid};
use crate::plan::queue::{self, ItemsSource, workers};
use crate::plan::{QueueSnapshot, QueueView};

pub(crate) async fn read<Q: QueueService>(
    service: &Q,
    queue: &QueueName,
    job: &Job,
    pods: &[Arc<Pod>],
    memory: &mut Memory,
) -> QueueView {
    match try_read(service, queue, job, pods, memory).await {
        Ok(view) => view,
        Err(error) => QueueView::Unavailable(error.to_string()),
    }
}

async fn try_read<Q: QueueService>(
    service: &Q,
    queue: &QueueName,
    job: &Job,
    pods: &[Arc<Pod>],
    memory: &mut Memory,
) -> Result<QueueView, ServiceError> {
    let Some(status) = service.status(queue).await? else {
        return Ok(QueueView::Missing);
    };
    let workers = service.workers(queue).await?;
    // Once the queue is over, a Pod that comes late leaves well without a session.
    if !status.phase.is_over() && !queue::pods::is_worker_elsewhere(&job.spec.template) {
        learn_who_worked(service, queue, pods, &mut memory.worked).await?;
    }
    let never_worked = memory.worked.iter().filter(|(_, worked)| !**worked);
    Ok(QueueView::Seen(Box::new(QueueSnapshot {
        status,
        workers,
        never_worked: never_worked.map(|(uid, _)| uid.clone()).collect(),
        outlived_a_job: false,
    })))
}

/// Asks about each Pod that exited 0 whether it had ever had a session. The answer is final.
async fn learn_who_worked<Q: QueueService>(
    service: &Q,
    queue: &QueueName,
    pods: &[Arc<Pod>],
    worked: &mut HashMap<Uid, bool>,
) -> Result<(), ServiceError> {
    let succeeded: HashMap<&str, &Arc<Pod>> = pods
        .iter()
        .filter(|pod| pod.has_succeeded())
        .map(|pod| (pod.uid(), pod))
        .collect();
    worked.retain(|uid, _| succeeded.contains_key(&**uid));
    let asked: Vec<&Arc<Pod>> = succeeded
        .into_values()
        .filter(|pod| !worked.contains_key(pod.uid()))
        .collect();
    // By position: a closure over references would tie the future to one lifetime.
    let answers = (0..asked.len()).map(|position| {
        let pod = asked[position];
        async move { (pod.uid().to_owned(), has_worked(service, queue, pod).await) }
    });
    let mut answers = stream::iter(answers).buffer_unordered(CALLS_AT_A_TIME);
    while let Some((uid, answer)) = answers.next().await {
        worked.insert(uid, answer?);
    }
    Ok(())
}

/// Tells whether any worker of a Pod ever had a session. One that nobody knows of any more is
/// taken for one that had.
async fn has_worked<Q: QueueService>(
    service: &Q,
    queue: &QueueName,
    pod: &Pod,
) -> Result<bool, ServiceError> {
    for worker in workers::of_pod(pod) {
        if service.had_session(queue, &worker).await? != Some(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why a queue cannot be filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    /// The config map cannot be read.
    #[error("failed to read config map {name}")]
    Read {
        /// The config map.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// A line is no JSON.
    #[error("config map {name}: line {line} of {key} is no JSON: {source}")]
    Line {
        /// The config map.
        name: String,
        /// The key.
        key: String,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// Reads what a queue is filled with. Lines are texts, except under a key that ends in `.jsonl`.
pub(crate) async fn items(
    client: &Client,
    namespace: &str,
    source: &ItemsSource,
) -> Result<Fill, FillError> {
    let name = match source {
        ItemsSource::Range { first, last } => {
            return Ok(Fill::Range {
                first: *first,
                last: *last,
            });
        }
        ItemsSource::ConfigMap(name) => name,
    };
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let config_map = api.get(name).await.map_err(|source| FillError::Read {
        name: name.clone(),
        source,
    })?;
    payloads(name, &config_map.data.unwrap_or_default()).map(Fill::Payloads)
}

fn payloads(name: &str, data: &BTreeMap<String, String>) -> Result<Vec<Json>, FillError> {
    let mut payloads = Vec::new();
    for (key, text) in data {
        let is_json = key.ends_with(".jsonl") || key.ends_with(".ndjson");
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty());
        for (position, line) in lines {
            let payload = if is_json {
                serde_json::from_str::<Box<RawValue>>(line)
            } else {
                serde_json::value::to_raw_value(line)
            };
            let payload = payload.map_err(|source| FillError::Line {
                name: name.into(),
                key: key.clone(),
                line: position + 1,
                source,
            })?;
            payloads.push(payload.into());
        }
    }
    Ok(payloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_holds_lines_of_text_or_of_json() {
        let data = BTreeMap::from([
            ("a.txt".to_owned(), "one\n\ntwo\n".to_owned()),
            ("b.jsonl".to_owned(), "{\"n\": 1}\n".to_owned()),
        ]);
        let payloads = payloads("files", &data).unwrap();
        let texts: Vec<&str> = payloads.iter().map(|payload| payload.get()).collect();
        assert_eq!(texts, [r#""one""#, r#""two""#, r#"{"n": 1}"#]);
        let bad = BTreeMap::from([("b.jsonl".to_owned(), "{\n".to_owned())]);
        assert!(super::payloads("files", &bad).is_err());
    }
}
