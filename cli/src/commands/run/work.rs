//! What a run is to do: a program for every item, or a manifest; either way it becomes a Job.

use std::path::Path;

use gangline_controller::api::Job;
use gangline_controller::api::names::{GANGLINE_CONTROLLER, QUEUE, STOP_AT_DEAD_ITEMS};
use gangline_controller::plan::queue::QueueSpec;
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::commands::documents::{self, Documents, NAMESPACES, collection};
use crate::commands::exec::ExecArgs;
use crate::commands::local;
use crate::error::{Error, Kind};

/// The name of the Job and of the queue of a program's run.
const NAME: &str = "run";
/// How long a worker may take to leave once it is told to go.
const GRACE_SECONDS: u64 = 5;
/// Workers lost without an item done meanwhile, after which the run is given up.
const LOST_MAX: u32 = 20;
/// Exit codes of workers that will fare no better when they are started again: called in a way
/// that cannot work, and refused credentials.
const HOPELESS: [i32; 2] = [2, 77];
/// The most workers that jobs are spread over without being asked.
const WORKERS_MAX: u16 = 8;

/// A Job to be created, and what it needs to be there.
#[derive(Debug)]
pub(super) struct Work {
    /// The Job's manifest, with a namespace.
    job: Value,
    namespace: String,
    /// Objects to create before.
    others: Vec<Value>,
    /// The Job's queue; one without is a Job as Kubernetes knows it.
    pub(super) queue: Option<QueueSpec>,
    /// What a run that resumes this one has to be called with.
    pub(super) record: Vec<String>,
}

impl Work {
    /// Makes the Job that runs a program for every item, with `jobs` at a time.
    pub(super) fn of_program(
        exec: &ExecArgs,
        jobs: u16,
        workers: Option<u16>,
        attempts: u16,
        fail_fast: bool,
    ) -> Result<Self, Error> {
        exec.check()?;
        let workers = workers_for(jobs, workers)?;
        let directory = std::env::current_dir()
            .map_err(|error| Error::disk(format!("cannot tell the current directory: {error}")))?;
        let directory = directory.into_os_string().into_string().map_err(|path| {
            let text = format!("the current directory {} is not UTF-8", path.display());
            Error::usage(text)
        })?;
        let mut command = vec![unexpanded(&local::binary()?), "work".into()];
        command.push(format!("--jobs={}", jobs / workers));
        command.push(format!("--attempts={attempts}"));
        if let Some(joblog) = exec.joblog()? {
            command.push(unexpanded(&format!("--joblog={joblog}")));
        }
        // Programs find their files from where they run.
        let mut record = vec![format!("cd {directory}")];
        for argument in exec.as_arguments() {
            let argument = argument.into_string().map_err(|argument| {
                Error::usage(format!("the argument {} is not UTF-8", argument.display()))
            })?;
            command.push(unexpanded(&argument));
            record.push(argument);
        }
        let mut job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": NAME,
                "annotations": {
                    "gangline.dev/queue": NAME,
                    // Workers are there before the items are.
                    "gangline.dev/scale-to-items": "false",
                    "gangline.dev/drain-seconds": GRACE_SECONDS.to_string(),
                },
            },
            "spec": {
                "parallelism": workers,
                "backoffLimit": LOST_MAX,
                "podFailurePolicy": { "rules": [{
                    "action": "FailJob",
                    "onExitCodes": { "operator": "In", "values": HOPELESS },
                }] },
                "template": { "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "containers": [{
                        "name": "worker",
                        "image": "gangline",
                        "command": command,
                        "workingDir": directory,
                    }],
                } },
            },
        });
        if fail_fast {
            stop_at_first_dead(&mut job);
        }
        Self::new(job, Vec::new(), record)
    }

    /// Reads the Job of a manifest, which may have other objects that it needs; `-` is stdin.
    pub(super) fn of_manifest(
        path: &Path,
        jobs: Option<u16>,
        fail_fast: bool,
    ) -> Result<Self, Error> {
        let name = path.display();
        let Documents { text, objects } = documents::read(path)?;
        let (mut found, others): (Vec<Value>, Vec<Value>) = objects
            .into_iter()
            .partition(|document| document["kind"] == "Job");
        if others.iter().any(|document| document["kind"] == "Pod") {
            return Err(
                Error::usage(format!("{name} holds a Pod, and a run is of a Job")).hint(
                    "gangline up keeps a cluster for all kinds; gangline apply -f takes them",
                ),
            );
        }
        let (Some(mut job), true) = (found.pop(), found.is_empty()) else {
            let count = found.len() + 1;
            let text = format!("{name} must hold exactly one Job, not {count}");
            return Err(Error::usage(match count {
                1 => format!("{name} must hold a Job, and holds none"),
                _ => text,
            })
            .hint(
                "a Job has apiVersion: batch/v1 and kind: Job; gangline apply -f takes several",
            ));
        };
        if let (Some(jobs), Some(spec)) = (jobs, job["spec"].as_object_mut()) {
            spec.insert("parallelism".into(), jobs.into());
        }
        if fail_fast {
            if job["metadata"]["annotations"][QUEUE].is_null() {
                let text = format!("--fail-fast needs a Job with a queue, annotation {QUEUE}");
                let hint = "backoffLimit: 0 ends a Job without one at its first failed Pod";
                return Err(Error::usage(text).hint(hint));
            }
            stop_at_first_dead(&mut job);
        }
        let hash = Sha256::digest(text.as_bytes());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::new(job, others, vec!["-f".into(), name.to_string(), hash])
    }

    fn new(mut job: Value, others: Vec<Value>, record: Vec<String>) -> Result<Self, Error> {
        let namespace = match &job["metadata"]["namespace"] {
            Value::Null => "default".to_owned(),
            Value::String(namespace) => namespace.clone(),
            other => {
                let text = format!("metadata.namespace must be a text, not {other}");
                return Err(Error::usage(text));
            }
        };
        if let Some(metadata) = job["metadata"].as_object_mut() {
            metadata.insert("namespace".into(), namespace.clone().into());
        }
        let typed: Job = serde_path_to_error::deserialize(&job).map_err(|error| {
            let (path, inner) = (error.path().to_string(), error.inner());
            Error::usage(format!("the Job's {path}: {inner}"))
        })?;
        if typed.name().is_empty() {
            return Err(Error::usage("the Job's metadata.name is missing"));
        }
        if let Some(manager) = &typed.spec.managed_by
            && manager != GANGLINE_CONTROLLER
        {
            let text = format!("the Job's spec.managedBy names another controller, {manager:?}");
            let hint = format!("leave it out, or name {GANGLINE_CONTROLLER}");
            return Err(Error::usage(text).hint(hint));
        }
        if let Some(never) = never_ends(&typed) {
            return Err(Error::usage(format!(
                "the Job's {never}, so it would never end"
            )));
        }
        let queue = QueueSpec::of(&typed).map_err(|error| {
            let text = crate::error::chain(&error);
            Error::usage(format!("the Job's {text}"))
        })?;
        Ok(Self {
            job,
            namespace,
            others,
            queue,
            record,
        })
    }

    /// Creates the objects, the Job last.
    pub(super) async fn create(&self, cluster: &Client) -> Result<Job, Error> {
        let namespace = &self.namespace;
        if namespace != "default" {
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
            });
            create(cluster, NAMESPACES, &object).await?;
        }
        for object in &self.others {
            if object["kind"] == "Namespace" && object["metadata"]["name"] == *namespace {
                continue;
            }
            let path = collection(object, namespace)?;
            create(cluster, &path, object).await?;
        }
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
        let created = create(cluster, &path, &self.job).await?;
        serde_json::from_value(created)
            .map_err(|error| Error::new(Kind::Failed, format!("the Job that was created: {error}")))
    }
}

/// Has the queue of a Job stopped as soon as an item is dead.
fn stop_at_first_dead(job: &mut Value) {
    job["metadata"]["annotations"][STOP_AT_DEAD_ITEMS] = "1".into();
}

/// Protects a word from the expansion of a Pod's command, where `$(NAME)` is a variable and `$$`
/// is `$`; any other `$` is left alone.
pub(super) fn unexpanded(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word.chars().peekable();
    while let Some(c) = rest.next() {
        text.push(c);
        if c == '$' && matches!(rest.peek(), Some('$' | '(')) {
            text.push('$');
        }
    }
    text
}

/// Returns what keeps a Job from coming to an end where nobody changes it.
fn never_ends(job: &Job) -> Option<&'static str> {
    if job.is_suspended() {
        return Some("spec.suspend is true");
    }
    (job.parallelism() == 0).then_some("spec.parallelism is 0")
}

async fn create(cluster: &Client, path: &str, object: &Value) -> Result<Value, Error> {
    let request = Request::post(format!("{path}?fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .map_err(Error::usage)?;
    match cluster.request(request).await {
        Ok(created) => Ok(created),
        Err(kube::Error::Api(status)) if status.code < 500 => Err(Error::usage(status.message)),
        Err(error) => Err(Error::new(Kind::Failed, crate::error::chain(&error))),
    }
}

/// Returns how many workers share the jobs: each of them runs as many at a time.
pub(super) fn workers_for(jobs: u16, asked: Option<u16>) -> Result<u16, Error> {
    match asked {
        Some(workers) if jobs.is_multiple_of(workers) => Ok(workers),
        Some(workers) => Err(Error::usage(format!(
            "--workers must divide the number of jobs, and {workers} does not divide {jobs}"
        ))),
        None => Ok((2..=WORKERS_MAX)
            .find(|workers| jobs.is_multiple_of(*workers))
            .unwrap_or(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::{unexpanded, workers_for};

    #[test]
    fn what_a_pod_would_expand_is_protected() {
        let cases = [
            ("$1", "$1"),
            ("$(X)", "$$(X)"),
            ("$$", "$$$"),
            ("$$(X)", "$$$$(X)"),
        ];
        for (word, protected) in cases {
            assert_eq!(unexpanded(word), protected);
        }
    }

    #[test]
    fn jobs_are_spread_evenly_over_few_workers() {
        let workers = |jobs| workers_for(jobs, None).unwrap();
        assert_eq!([1, 2, 3, 8, 15, 11].map(workers), [1, 2, 3, 2, 3, 1]);
        assert_eq!(workers_for(8, Some(4)).unwrap(), 4);
        assert!(workers_for(8, Some(3)).is_err());
    }
}
