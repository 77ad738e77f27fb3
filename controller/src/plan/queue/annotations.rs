//! What a Job says about its queue.

use std::time::Duration;

use gangline_protocol::{InvalidId, QueueName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::api::names::{
    ANNOTATION_PREFIX, DRAIN_SECONDS, FIRST_SUCCESS, IDLE_SECONDS, MAX_DEAD_ITEMS, PROGRESS, QUEUE,
    QUEUE_ITEMS, QUEUE_SETTINGS, QUEUE_UID, SCALE_TO_ITEMS, STOP_AT_DEAD_ITEMS, WRAP,
};
use crate::api::{CompletionMode, Job, JobSpec};

/// Stands for the Job's name in the annotation of the queue.
const JOB_NAME: &str = "$(job)";
const DRAIN_SECONDS_DEFAULT: u64 = 30;
const IDLE_SECONDS_DEFAULT: u64 = 60;

/// What a Job says about its queue, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue, in the Job's namespace.
    pub queue: QueueName,
    /// What it is filled with.
    pub items: Option<ItemsSource>,
    /// What a Pod that exits 0 before the queue is over means.
    pub first_success: FirstSuccess,
    /// How long Pods may take to leave once the queue is over.
    pub drain: Duration,
    /// How many dead items a successful Job may have.
    pub max_dead_items: u64,
    /// At how many dead items the queue is stopped.
    pub stop_at_dead_items: Option<u64>,
    /// Whether there are at most as many Pods as items left.
    pub scale_to_items: bool,
    /// How long a Pod that is not needed may hold nothing.
    pub idle: Duration,
    /// Whether the container's command is run by `gangline work`.
    pub wrap: bool,
}

/// What a Pod that exits 0 before its queue is over means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstSuccess {
    /// The Job has succeeded: its queue is stopped.
    Stop,
    /// The Pod has left too early.
    Continue,
}

/// What a queue is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemsSource {
    /// The whole numbers from the first to the last.
    Range {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The lines of a config map of the Job's namespace.
    ConfigMap(String),
}

/// Why a Job's queue cannot be what its annotations say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The name is no queue name.
    #[error("annotation {QUEUE} does not name a queue")]
    Name(#[source] InvalidId),
    /// The queue is in another namespace.
    #[error("annotation {QUEUE} names a queue in namespace {queue:?}, but the Job is in {job:?}")]
    Namespace {
        /// The namespace of the queue.
        queue: String,
        /// The namespace of the Job.
        job: String,
    },
    /// The Job is of a kind that cannot have a queue.
    #[error(
        "annotation {QUEUE} needs a Job with completionMode NonIndexed, and completions absent or 1"
    )]
    Kind,
    /// A setting without a queue.
    #[error("annotation {0} needs {QUEUE}")]
    WithoutQueue(&'static str),
    /// A value that means nothing.
    #[error("annotation {key} must be {wanted}, not {value:?}")]
    Value {
        /// The annotation.
        key: &'static str,
        /// What is allowed.
        wanted: &'static str,
        /// What it is.
        value: String,
    },
    /// It has the prefix of Gangline, and no meaning.
    #[error(
        "annotation {0} means nothing: there are {QUEUE} and, beside it, {names}",
        names = QUEUE_SETTINGS.join(", ")
    )]
    Unknown(String),
    /// Nothing to wrap.
    #[error("annotation {WRAP} needs a command in the first container of the template")]
    NothingToWrap,
}

impl AnnotationError {
    /// Returns the annotation that makes no sense.
    #[must_use]
    pub fn annotation(&self) -> &str {
        match self {
            Self::Unknown(key) => key,
            Self::Name(_) | Self::Namespace { .. } | Self::Kind => QUEUE,
            Self::WithoutQueue(key) | Self::Value { key, .. } => key,
            Self::NothingToWrap => WRAP,
        }
    }

    /// Returns what the annotation must be, without its name and value.
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Self::Name(source) => source.to_string(),
            Self::Value { wanted, .. } => format!("must be {wanted}"),
            Self::Namespace { .. }
            | Self::Kind
            | Self::WithoutQueue(_)
            | Self::Unknown(_)
            | Self::NothingToWrap => {
                let text = self.to_string();
                let name = format!("annotation {} ", self.annotation());
                text.strip_prefix(&name).unwrap_or(&text).to_owned()
            }
        }
    }
}

impl QueueSpec {
    /// Judges the annotations of a Job by its JSON, whatever else is in it.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn check(job: &Value) -> Result<(), AnnotationError> {
        let (metadata, spec) = (&job["metadata"], &job["spec"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let annotations = metadata["annotations"].as_object().into_iter().flatten();
        let read = Job {
            metadata: ObjectMeta {
                name: text(&metadata["name"]),
                namespace: text(&metadata["namespace"]),
                annotations: Some(
                    annotations
                        .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
                        .collect(),
                ),
                ..ObjectMeta::default()
            },
            spec: JobSpec {
                completions: spec["completions"]
                    .as_i64()
                    .map(|number| i32::try_from(number).unwrap_or(i32::MAX)),
                completion_mode: text(&spec["completionMode"]).map(|mode| match &*mode {
                    "NonIndexed" => CompletionMode::NonIndexed,
                    _ => CompletionMode::Unknown(mode),
                }),
                template: spec["template"].clone(),
                ..JobSpec::default()
            },
            ..Job::default()
        };
        Self::of(&read).map(drop)
    }

    /// Reads the annotations of `job`; a Job without a queue has no spec.
    ///
    /// # Errors
    ///
    /// The first annotation that makes no sense, or a Job that cannot have a queue.
    pub fn of(job: &Job) -> Result<Option<Self>, AnnotationError> {
        if let Some(key) = unknown(job) {
            return Err(AnnotationError::Unknown(key.into()));
        }
        let Some(name) = job.annotation(QUEUE) else {
            let lonely = QUEUE_SETTINGS
                .into_iter()
                .find(|key| job.annotation(key).is_some());
            return lonely.map_or(Ok(None), |key| Err(AnnotationError::WithoutQueue(key)));
        };
        let is_non_indexed = matches!(
            job.spec.completion_mode,
            None | Some(CompletionMode::NonIndexed)
        );
        if !is_non_indexed || !matches!(job.spec.completions, None | Some(1)) {
            return Err(AnnotationError::Kind);
        }
        let wrap = read(job, WRAP, "true or false", parse_bool)?.unwrap_or(false);
        let container = &job.spec.template["spec"]["containers"][0];
        if wrap && container["command"].as_array().is_none_or(Vec::is_empty) {
            return Err(AnnotationError::NothingToWrap);
        }
        let seconds = "a whole number of seconds";
        let number = "a whole number";
        let drain = read(job, DRAIN_SECONDS, seconds, parse_number)?;
        let idle = read(job, IDLE_SECONDS, seconds, parse_number)?;
        Ok(Some(Self {
            queue: queue_name(job, name)?,
            items: read(
                job,
                QUEUE_ITEMS,
                "FIRST..LAST or configmap/NAME",
                parse_items,
            )?,
            first_success: read(job, FIRST_SUCCESS, "stop or continue", parse_first_success)?
                .unwrap_or(FirstSuccess::Stop),
            drain: Duration::from_secs(drain.unwrap_or(DRAIN_SECONDS_DEFAULT)),
            max_dead_items: read(job, MAX_DEAD_ITEMS, number, parse_number)?.unwrap_or(0),
            stop_at_dead_items: read(job, STOP_AT_DEAD_ITEMS, "a whole number above 0", |text| {
                parse_number(text).filter(|items| *items > 0)
            })?,
            scale_to_items: read(job, SCALE_TO_ITEMS, "true or false", parse_bool)?.unwrap_or(true),
            idle: Duration::from_secs(idle.unwrap_or(IDLE_SECONDS_DEFAULT)),
            wrap,
        }))
    }
}

/// Returns an annotation with Gangline's prefix that is none of Gangline's.
fn unknown(job: &Job) -> Option<&str> {
    let known = [QUEUE, QUEUE_UID, PROGRESS];
    let annotations = job.metadata.annotations.iter().flatten();
    annotations
        .map(|(key, _)| key.as_str())
        .filter(|key| key.starts_with(ANNOTATION_PREFIX))
        .find(|key| !known.contains(key) && !QUEUE_SETTINGS.contains(key))
}

/// The queue of a Job is always in the Job's namespace.
fn queue_name(job: &Job, annotation: &str) -> Result<QueueName, AnnotationError> {
    let text = annotation.replace(JOB_NAME, job.name());
    let namespace = match job.namespace() {
        "" => QueueName::DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let full = if text.contains('.') {
        text
    } else {
        format!("{namespace}.{text}")
    };
    let queue: QueueName = full.parse().map_err(AnnotationError::Name)?;
    if queue.namespace() == namespace {
        Ok(queue)
    } else {
        Err(AnnotationError::Namespace {
            queue: queue.namespace().into(),
            job: namespace.into(),
        })
    }
}

fn read<T>(
    job: &Job,
    key: &'static str,
    wanted: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, AnnotationError> {
    let Some(text) = job.annotation(key) else {
        return Ok(None);
    };
    match parse(text.trim()) {
        Some(value) => Ok(Some(value)),
        None => Err(AnnotationError::Value {
            key,
            wanted,
            value: text.chars().take(80).collect(),
        }),
    }
}

fn parse_number(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // Seconds are added to points in time, so what is longer than any life is no number.
    let number: u64 = text.parse().ok()?;
    (is_digits && number <= u64::from(u32::MAX)).then_some(number)
}

fn parse_bool(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn parse_first_success(text: &str) -> Option<FirstSuccess> {
    match text {
        "stop" => Some(FirstSuccess::Stop),
        "continue" => Some(FirstSuccess::Continue),
        _ => None,
    }
}

fn parse_items(text: &str) -> Option<ItemsSource> {
    if let Some(name) = text.strip_prefix("configmap/") {
        return (!name.is_empty()).then(|| ItemsSource::ConfigMap(name.into()));
    }
    let (first, last) = text.split_once("..")?;
    let (first, last) = (parse_number(first)?, parse_number(last)?);
    (first <= last).then_some(ItemsSource::Range { first, last })
}
