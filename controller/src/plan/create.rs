//! The Pods that a Job makes.

use serde_json::{Map, Value, json};

use super::claim;
use super::size::Slot;
use crate::api::Job;
use crate::api::names::{
    COMPLETION_INDEX, COMPLETION_INDEX_ENV, INDEX_FAILURE_COUNT, INDEX_IGNORED_FAILURE_COUNT,
    TRACKING_FINALIZER,
};

/// Longest base of a generated name: five random characters make it 63.
const BASE_BYTES_MAX: usize = 58;
const SUFFIX_BYTES: usize = 5;
/// No vowels and no lookalikes, so that no suffix spells a word.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A Pod to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPod {
    /// Its name, random suffix included: a repeat of the creation meets the first Pod.
    pub name: String,
    /// What it is for.
    pub slot: Slot,
    /// The whole object.
    pub manifest: Value,
}

/// Why no Pod can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing would tie the Pod to its Job.
    #[error("unable to create pods, no labels")]
    NoLabels,
    /// Not a Pod template.
    #[error("unable to create pods, the template has no spec")]
    NoSpec,
}

/// A Pod template, made ready for one Job.
#[derive(Debug, Clone)]
pub struct Template {
    base: Value,
    job_name: String,
}

impl Template {
    /// Takes labels, annotations, finalizers and spec from the Job's template.
    ///
    /// # Errors
    ///
    /// When the template has no labels or no spec.
    pub fn new(job: &Job) -> Result<Self, TemplateError> {
        let template = &job.spec.template;
        let metadata = &template["metadata"];
        let labels = metadata["labels"].as_object();
        if labels.is_none_or(Map::is_empty) {
            return Err(TemplateError::NoLabels);
        }
        if !template["spec"].is_object() {
            return Err(TemplateError::NoSpec);
        }
        let mut finalizers: Vec<Value> = metadata["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if !finalizers.iter().any(|name| name == TRACKING_FINALIZER) {
            finalizers.push(TRACKING_FINALIZER.into());
        }
        let mut base = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": job.namespace(),
                "labels": labels,
                "finalizers": finalizers,
                "ownerReferences": [claim::owner_reference(job)],
            },
            "spec": template["spec"],
        });
        if let Some(annotations) = metadata["annotations"].as_object() {
            base["metadata"]["annotations"] = Value::Object(annotations.clone());
        }
        let mut template = Self {
            base,
            job_name: job.name().to_owned(),
        };
        if job.is_indexed() {
            template.add_env(&json!({
                "name": COMPLETION_INDEX_ENV,
                "valueFrom": { "fieldRef": {
                    "fieldPath": format!("metadata.labels['{COMPLETION_INDEX}']"),
                } },
            }));
        }
        Ok(template)
    }

    /// Gives `entry` to every container that does not set the variable itself.
    pub fn add_env(&mut self, entry: &Value) {
        self.for_each_container(|_, container| add_env_entry(container, entry));
    }

    /// Gives each regular container and init container to `change`, with its name.
    pub fn for_each_container(&mut self, mut change: impl FnMut(&str, &mut Value)) {
        for list in ["initContainers", "containers"] {
            for container in self.base["spec"]
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let name = container["name"].as_str().unwrap_or_default().to_owned();
                change(&name, container);
            }
        }
    }

    /// Returns the spec of the Pods.
    pub fn spec_mut(&mut self) -> &mut Value {
        &mut self.base["spec"]
    }

    /// Returns the Pod for `slot`; `suffix` is what makes its name its own.
    #[must_use]
    pub fn pod(&self, slot: Slot, suffix: &str) -> NewPod {
        let generate_name = generate_name(&self.job_name, slot.index);
        let base = truncated(&generate_name, BASE_BYTES_MAX);
        let name = format!("{base}{suffix}");
        let mut manifest = self.base.clone();
        let metadata = &mut manifest["metadata"];
        metadata["name"] = name.as_str().into();
        metadata["generateName"] = generate_name.into();
        if let Some(index) = slot.index {
            let text = index.to_string();
            metadata["labels"][COMPLETION_INDEX] = text.as_str().into();
            metadata["annotations"][COMPLETION_INDEX] = text.into();
            if let Some(failures) = slot.failures {
                metadata["annotations"][INDEX_FAILURE_COUNT] = failures.counted.to_string().into();
                if failures.ignored > 0 {
                    metadata["annotations"][INDEX_IGNORED_FAILURE_COUNT] =
                        failures.ignored.to_string().into();
                }
            }
            manifest["spec"]["hostname"] = format!("{}-{index}", self.job_name).into();
        }
        NewPod {
            name,
            slot,
            manifest,
        }
    }
}

/// Adds `entry` to a container's environment unless the container sets that variable.
pub fn add_env_entry(container: &mut Value, entry: &Value) {
    if !container["env"].is_array() {
        container["env"] = Value::Array(Vec::new());
    }
    if let Some(env) = container["env"].as_array_mut()
        && !env.iter().any(|has| has["name"] == entry["name"])
    {
        env.push(entry.clone());
    }
}

/// Returns the `generateName` of a Pod.
#[must_use]
pub fn generate_name(job_name: &str, index: Option<u32>) -> String {
    match index {
        None if job_name.len() < 253 => format!("{job_name}-"),
        None => job_name.to_owned(),
        Some(index) => {
            let tail = format!("-{index}-");
            let room = BASE_BYTES_MAX - tail.len();
            format!("{}{tail}", truncated(job_name, room))
        }
    }
}

fn truncated(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns the random suffix of the `n`th Pod made with `seed`.
#[must_use]
pub fn suffix(seed: u64, n: usize) -> String {
    // SplitMix64: each step is a bijection of the counter, so neighbours look unrelated.
    let step = (n as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bits = seed.wrapping_add(step);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let mut text = String::with_capacity(SUFFIX_BYTES);
    for _ in 0..SUFFIX_BYTES {
        let letters = ALPHABET.len() as u64;
        text.push(char::from(
            ALPHABET[usize::try_from(bits % letters).unwrap_or(0)],
        ));
        bits /= letters;
    }
    text
}
