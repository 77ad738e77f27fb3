//! `gangline run --dry-run=client`: the same run as a Job for a Kubernetes cluster.

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use gangline_controller::api::names::{
    GANGLINE_CONTROLLER, QUEUE, QUEUE_ITEMS, STOP_AT_DEAD_ITEMS, WRAP,
};
use gangline_worker::protocol::Json;
use serde_json::{Value, json};

use super::work::{unexpanded, workers_for};
use crate::commands::exec::ExecArgs;
use crate::commands::input::InputArgs;
use crate::error::Error;
use crate::output;

/// How a manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ManifestFormat {
    /// YAML documents
    Yaml,
    /// One JSON List
    Json,
}

/// What a Job on a cluster takes from the arguments of a run.
pub(super) struct Wanted<'a> {
    pub(super) exec: &'a ExecArgs,
    pub(super) input: InputArgs,
    pub(super) jobs: u16,
    pub(super) workers: Option<u16>,
    pub(super) attempts: u16,
    pub(super) fail_fast: bool,
    pub(super) image: Option<String>,
}

/// Most bytes of data in a ConfigMap (Kubernetes: `MaxSecretSize`, which bounds both).
const CONFIG_MAP_BYTES_MAX: usize = 1 << 20;
/// Longest name of a Job whose Pods' names are labels, too: RFC 1123.
const NAME_BYTES_MAX: usize = 57;

/// Prints the Job, and the config map with its items if it needs one.
pub(super) fn print(wanted: Wanted<'_>, format: ManifestFormat) -> Result<ExitCode, Error> {
    let documents = documents(wanted)?;
    let text = match format {
        ManifestFormat::Json => {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": documents });
            serde_json::to_string_pretty(&list).map_err(Error::disk)? + "\n"
        }
        ManifestFormat::Yaml => {
            let mut text = String::new();
            for document in &documents {
                if !text.is_empty() {
                    text.push_str("---\n");
                }
                text.push_str(&output::yaml(document)?);
            }
            text
        }
    };
    output::data(text.as_bytes()).map_err(|error| Error::disk(format!("stdout: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

fn documents(wanted: Wanted<'_>) -> Result<Vec<Value>, Error> {
    let Wanted {
        exec,
        input,
        jobs,
        workers,
        attempts,
        fail_fast,
        image,
    } = wanted;
    exec.template()?;
    let Some(image) = image else {
        return Err(Error::usage("a Job on a cluster needs an image")
            .hint("--image IMAGE names one that has the program"));
    };
    let program = exec.program_as_text()?;
    let name = name_of(&program[0]);
    // A worker that a Job starts runs one program at a time, unless it is told otherwise.
    let workers = workers_for(jobs, Some(workers.unwrap_or(jobs)))?;
    let mut environment = exec.as_environment();
    environment.push(("GANGLINE_ATTEMPTS", attempts.to_string()));
    if jobs > workers {
        environment.push(("GANGLINE_JOBS", (jobs / workers).to_string()));
    }
    let environment: Vec<Value> = environment
        .into_iter()
        .map(|(name, value)| json!({ "name": name, "value": unexpanded(&value) }))
        .collect();
    let command: Vec<String> = program.iter().map(|word| unexpanded(word)).collect();
    let mut annotations = json!({ QUEUE: "$(job)", WRAP: "true" });
    if fail_fast {
        annotations[STOP_AT_DEAD_ITEMS] = "1".into();
    }
    let mut documents = Vec::new();
    match items_of(input, &name)? {
        Items::None => output::note(format_args!(
            "gangline: the Job has no items yet; fill its queue with: gangline push {name} --seal"
        )),
        Items::Range(range) => annotations[QUEUE_ITEMS] = range.into(),
        Items::ConfigMap(map) => {
            annotations[QUEUE_ITEMS] = format!("configmap/{}", config_map_name(&name)).into();
            documents.push(map);
        }
    }
    documents.push(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name, "annotations": annotations },
        "spec": {
            "managedBy": GANGLINE_CONTROLLER,
            "parallelism": workers,
            "template": { "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "worker",
                    "image": image,
                    "command": command,
                    "env": environment,
                }],
            } },
        },
    }));
    Ok(documents)
}

/// How the queue of the Job is filled.
enum Items {
    None,
    Range(String),
    ConfigMap(Value),
}

fn items_of(input: InputArgs, name: &str) -> Result<Items, Error> {
    if let Some(range) = input.as_range() {
        return Ok(Items::Range(range));
    }
    if input.missing().is_some() {
        return Ok(Items::None);
    }
    let mut payloads: Vec<Json> = Vec::new();
    let mut bytes = 0;
    for item in input.open()? {
        let payload = item?.payload;
        bytes += payload.get().len() + 1;
        if bytes > CONFIG_MAP_BYTES_MAX {
            let text = format!(
                "the items must be at most {CONFIG_MAP_BYTES_MAX} bytes to go into a config map"
            );
            let hint = format!(
                "print the Job without items (</dev/null), and fill its queue with: \
                 gangline push {name} --seal"
            );
            return Err(Error::usage(text).hint(hint));
        }
        payloads.push(payload);
    }
    if payloads.is_empty() {
        return Ok(Items::None);
    }
    let texts: Option<Vec<String>> = payloads.iter().map(as_line).collect();
    let (file, lines) = match texts {
        Some(lines) => ("items.txt", lines),
        None => {
            let lines = payloads.iter().map(|payload| payload.get().to_owned());
            ("items.jsonl", lines.collect())
        }
    };
    Ok(Items::ConfigMap(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": config_map_name(name) },
        "data": { file: lines.join("\n") + "\n" },
    })))
}

/// Returns a text that can be a line of a config map as it is.
fn as_line(payload: &Json) -> Option<String> {
    let text: String = serde_json::from_str(payload.get()).ok()?;
    let is_line = !text.is_empty() && !text.contains(char::is_control);
    is_line.then_some(text)
}

fn config_map_name(job: &str) -> String {
    format!("{job}-items")
}

/// Makes a name for the Job of the program's.
fn name_of(program: &str) -> String {
    let base = Path::new(program).file_name().unwrap_or_default();
    let name: String = base
        .to_string_lossy()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_BYTES_MAX)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "run" } else { name }.into()
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_job_is_called_as_its_program() {
        assert_eq!(name_of("/usr/bin/Convert_7.sh"), "convert-7-sh");
        assert_eq!(name_of("-"), "run");
        assert!(name_of(&"x".repeat(300)).len() < 60);
    }
}
