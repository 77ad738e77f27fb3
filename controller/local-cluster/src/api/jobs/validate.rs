//! What a Job may say of itself.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, SuccessPolicy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::super::error::Cause;
use super::super::pods;
use super::super::strategy::{is_dns_label, is_dns_subdomain, is_qualified_name, validate_labels};
use super::{CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME, indexes};

const INDEXED: &str = "Indexed";
/// From here on, an Indexed Job needs tighter limits.
const MANY_COMPLETIONS: i32 = 100_000;
const INDEXED_PARALLELISM_MAX: i32 = 100_000;
const MANY_PARALLELISM_MAX: i32 = 10_000;
const FAILED_INDEXES_MAX: i32 = 100_000;
const MANY_FAILED_INDEXES_MAX: i32 = 10_000;
const RULES_MAX: usize = 20;
const PATTERNS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES_MAX: usize = 65_536;
const MANAGED_BY_BYTES_MAX: usize = 63;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// What is wrong, collected.
#[derive(Default)]
struct Findings(Vec<Cause>);

impl Findings {
    fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, why: &str) {
        self.0.push(Cause::invalid(field, &value.into(), why));
    }

    fn required(&mut self, field: impl Into<String>, why: &str) {
        self.0.push(Cause::required(field, why));
    }

    fn not_supported(&mut self, field: impl Into<String>, value: &str, known: &[&str]) {
        self.0.push(Cause::not_supported(field, value, known));
    }

    fn at_most(&mut self, field: &str, value: i32, max: i32) {
        if value > max {
            self.invalid(
                field,
                value,
                &format!("must be less than or equal to {max}"),
            );
        }
    }
}

/// Which of the generated labels a template has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelNames {
    /// Those without a domain, as in Jobs from before the others came.
    Old,
    OldAndNew,
}

/// Judges a Job as a whole; `value` is the same Job.
pub(super) fn job(job: &Job, value: &Value, names: LabelNames) -> Vec<Cause> {
    let mut findings = Findings::default();
    let Some(spec) = &job.spec else {
        findings.required("spec", "");
        return findings.0;
    };
    name(&mut findings, job, spec);
    generated_selector(&mut findings, job, spec, names);
    findings.0.extend(self::spec(spec, value));
    findings.0
}

/// Judges what a Job is to do; `value` is the whole Job.
pub(super) fn spec(spec: &JobSpec, value: &Value) -> Vec<Cause> {
    let mut findings = Findings::default();
    selector(&mut findings, spec);
    numbers(&mut findings, spec);
    completion_mode(&mut findings, spec);
    if let Some(manager) = &spec.managed_by {
        managed_by(&mut findings, manager);
    }
    replacement(&mut findings, spec);
    if let Some(policy) = &spec.pod_failure_policy {
        failure_policy(&mut findings, spec, policy);
    }
    if let Some(policy) = &spec.success_policy {
        success_policy(&mut findings, spec, policy);
    }
    let template = &value["spec"]["template"];
    let labels = validate_labels(&template["metadata"], "spec.template");
    findings.0.extend(labels);
    findings
        .0
        .extend(pods::validate_spec(&template["spec"], "spec.template.spec"));
    restart_policy(&mut findings, spec);
    findings.0
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some(INDEXED)
}

fn name(findings: &mut Findings, job: &Job, spec: &JobSpec) {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let completions = spec.completions.unwrap_or(0);
    if is_indexed(spec) && completions > 0 {
        let last = format!("{name}-{}", completions - 1);
        if !is_dns_label(&last) {
            let why = format!("the host names of its Pods would not be DNS labels: {last}");
            findings.invalid("metadata.name", name, &why);
        }
    }
}

fn labels(spec: &JobSpec) -> BTreeMap<String, String> {
    let template = spec.template.metadata.as_ref();
    let labels = template.and_then(|metadata| metadata.labels.clone());
    labels.unwrap_or_default()
}

/// A selector that was not given by hand finds the Pods of this Job and no others.
fn generated_selector(findings: &mut Findings, job: &Job, spec: &JobSpec, names: LabelNames) {
    let Some(selector) = &spec.selector else {
        return;
    };
    if spec.manual_selector == Some(true) {
        return;
    }
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if uid.is_empty() {
        findings.required("metadata.uid", "");
    }
    let old = [(OLD_CONTROLLER_UID, uid), (OLD_JOB_NAME, name)];
    let new = [(CONTROLLER_UID, uid), (JOB_NAME, name)];
    let generated: Vec<(&str, &str)> = match names {
        LabelNames::Old => old.into(),
        LabelNames::OldAndNew => old.into_iter().chain(new).collect(),
    };
    let labels = labels(spec);
    for (key, wanted) in &generated {
        let why = format!("must be '{wanted}'");
        match labels.get(*key) {
            None => findings.required(format!("spec.template.metadata.labels[{key}]"), &why),
            Some(found) if found != wanted => {
                findings.invalid("spec.template.metadata.labels", json!(labels), &why);
            }
            Some(_) => {}
        }
    }
    let generated = generated.into_iter();
    let generated = generated.map(|(key, value)| (key.to_owned(), value.to_owned()));
    if !matches(selector, &generated.collect()).unwrap_or(true) {
        let why = "`selector` not auto-generated";
        findings.invalid("spec.selector", json!(selector), why);
    }
}

fn selector(findings: &mut Findings, spec: &JobSpec) {
    let Some(selector) = &spec.selector else {
        findings.required("spec.selector", "");
        return;
    };
    let labels = labels(spec);
    match matches(selector, &labels) {
        Err(why) => findings.invalid("spec.selector", json!(selector), &why),
        Ok(false) => {
            let why = "`selector` does not match template `labels`";
            findings.invalid("spec.template.metadata.labels", json!(labels), why);
        }
        Ok(true) => {}
    }
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let equal = selector.match_labels.iter().flatten();
    let mut fits = equal
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    for requirement in selector.match_expressions.iter().flatten() {
        let values = requirement.values.as_deref().unwrap_or_default();
        let found = labels.get(&requirement.key);
        fits &= match (requirement.operator.as_str(), values) {
            ("In" | "NotIn", []) => {
                return Err("must be specified when `operator` is 'In' or 'NotIn'".into());
            }
            ("In", values) => found.is_some_and(|value| values.contains(value)),
            ("NotIn", values) => found.is_none_or(|value| !values.contains(value)),
            ("Exists", []) => found.is_some(),
            ("DoesNotExist", []) => found.is_none(),
            (operator, _) => return Err(format!("not a valid selector operator: {operator:?}")),
        };
    }
    Ok(fits)
}

fn numbers(findings: &mut Findings, spec: &JobSpec) {
    let numbers = [
        ("spec.parallelism", spec.parallelism.map(i64::from)),
        ("spec.completions", spec.completions.map(i64::from)),
        ("spec.activeDeadlineSeconds", spec.active_deadline_seconds),
        ("spec.backoffLimit", spec.backoff_limit.map(i64::from)),
        (
            "spec.ttlSecondsAfterFinished",
            spec.ttl_seconds_after_finished.map(i64::from),
        ),
        (
            "spec.backoffLimitPerIndex",
            spec.backoff_limit_per_index.map(i64::from),
        ),
        (
            "spec.maxFailedIndexes",
            spec.max_failed_indexes.map(i64::from),
        ),
    ];
    for (field, number) in numbers {
        if let Some(number) = number.filter(|number| *number < 0) {
            findings.invalid(field, number, NOT_NEGATIVE);
        }
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        findings.required(
            "spec.backoffLimitPerIndex",
            "when maxFailedIndexes is specified",
        );
    }
}

fn completion_mode(findings: &mut Findings, spec: &JobSpec) {
    match spec.completion_mode.as_deref() {
        None | Some("NonIndexed") => {
            let why = "requires indexed completion mode";
            if let Some(limit) = spec.backoff_limit_per_index {
                findings.invalid("spec.backoffLimitPerIndex", limit, why);
            }
            if let Some(limit) = spec.max_failed_indexes {
                findings.invalid("spec.maxFailedIndexes", limit, why);
            }
        }
        Some(INDEXED) => indexed(findings, spec),
        Some(other) => {
            findings.not_supported("spec.completionMode", other, &[INDEXED, "NonIndexed"]);
        }
    }
}

fn indexed(findings: &mut Findings, spec: &JobSpec) {
    let parallelism = spec.parallelism.unwrap_or(0);
    findings.at_most("spec.parallelism", parallelism, INDEXED_PARALLELISM_MAX);
    let Some(completions) = spec.completions else {
        findings.required("spec.completions", "when completion mode is Indexed");
        return;
    };
    if let Some(limit) = spec.max_failed_indexes {
        findings.at_most("spec.maxFailedIndexes", limit, completions);
        findings.at_most("spec.maxFailedIndexes", limit, FAILED_INDEXES_MAX);
    }
    if completions > MANY_COMPLETIONS && spec.backoff_limit_per_index.is_some() {
        match spec.max_failed_indexes {
            None => {
                let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
                findings.required("spec.maxFailedIndexes", &why);
            }
            Some(limit) => {
                findings.at_most("spec.maxFailedIndexes", limit, MANY_FAILED_INDEXES_MAX);
            }
        }
        findings.at_most("spec.parallelism", parallelism, MANY_PARALLELISM_MAX);
    }
}

fn managed_by(findings: &mut Findings, manager: &str) {
    let field = "spec.managedBy";
    let is_path = |path: &str| {
        let is_letter =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@!$&'()*+,;=~%".contains(&byte);
        !path.is_empty() && path.bytes().all(is_letter)
    };
    match manager.split_once('/') {
        Some((domain, path)) if is_dns_subdomain(domain) && is_path(path) => {}
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            findings.invalid(field, manager, why);
        }
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        findings
            .0
            .push(Cause::too_long(field, MANAGED_BY_BYTES_MAX));
    }
}

fn replacement(findings: &mut Findings, spec: &JobSpec) {
    let Some(policy) = spec.pod_replacement_policy.as_deref() else {
        return;
    };
    let known: &[&str] = match spec.pod_failure_policy {
        Some(_) => &["Failed"],
        None => &["Failed", "TerminatingOrFailed"],
    };
    if !known.contains(&policy) {
        findings.not_supported("spec.podReplacementPolicy", policy, known);
    }
}

fn restart_policy(findings: &mut Findings, spec: &JobSpec) {
    let field = "spec.template.spec.restartPolicy";
    let policy = spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    match policy {
        None | Some("" | "Always") => {
            findings.required(field, "valid values: \"OnFailure\", \"Never\"");
        }
        Some("Never") => {}
        Some("OnFailure") if spec.pod_failure_policy.is_none() => {}
        Some("OnFailure") => {
            findings.invalid(
                field,
                "OnFailure",
                "only \"Never\" is supported when podFailurePolicy is specified",
            );
        }
        Some(other) => findings.not_supported(field, other, &["OnFailure", "Never"]),
    }
}

fn failure_policy(findings: &mut Findings, spec: &JobSpec, policy: &PodFailurePolicy) {
    let field = "spec.podFailurePolicy.rules";
    if policy.rules.len() > RULES_MAX {
        findings
            .0
            .push(Cause::too_many(field, policy.rules.len(), RULES_MAX));
    }
    let template = spec.template.spec.as_ref();
    let containers: Vec<&str> = template
        .iter()
        .flat_map(|spec| {
            spec.containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
        })
        .map(|container| container.name.as_str())
        .collect();
    for (position, rule) in policy.rules.iter().enumerate() {
        let at = format!("{field}[{position}]");
        match rule.action.as_str() {
            "" => findings.required(format!("{at}.action"), ""),
            "FailIndex" if spec.backoff_limit_per_index.is_none() => {
                let why = "requires the backoffLimitPerIndex to be set";
                findings.invalid(format!("{at}.action"), "FailIndex", why);
            }
            "Count" | "FailIndex" | "FailJob" | "Ignore" => {}
            other => {
                let known = ["Count", "FailIndex", "FailJob", "Ignore"];
                findings.not_supported(format!("{at}.action"), other, &known);
            }
        }
        let patterns = rule
            .on_pod_conditions
            .as_deref()
            .filter(|patterns| !patterns.is_empty());
        match (&rule.on_exit_codes, patterns) {
            (Some(codes), None) => exit_codes(findings, &at, codes, &containers),
            (None, Some(patterns)) => pod_conditions(findings, &at, patterns),
            (Some(_), Some(_)) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                findings.invalid(at, json!(rule), why);
            }
            (None, None) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                findings.invalid(at, json!(rule), why);
            }
        }
    }
}

fn exit_codes(
    findings: &mut Findings,
    rule: &str,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    containers: &[&str],
) {
    let at = format!("{rule}.onExitCodes");
    match codes.operator.as_str() {
        "" => findings.required(format!("{at}.operator"), ""),
        "In" | "NotIn" => {}
        other => findings.not_supported(format!("{at}.operator"), other, &["In", "NotIn"]),
    }
    if let Some(name) = &codes.container_name
        && !containers.contains(&name.as_str())
    {
        let why = "must be one of the container or initContainer names in the pod template";
        findings.invalid(format!("{at}.containerName"), name.as_str(), why);
    }
    let field = format!("{at}.values");
    let values = &codes.values;
    if values.is_empty() {
        findings.invalid(
            field.as_str(),
            json!(values),
            "at least one value is required",
        );
    } else if values.len() > EXIT_CODES_MAX {
        findings.0.push(Cause::too_many(
            field.as_str(),
            values.len(),
            EXIT_CODES_MAX,
        ));
    }
    let mut known = Vec::new();
    for (position, value) in values.iter().enumerate() {
        let one = format!("{field}[{position}]");
        if codes.operator == "In" && *value == 0 {
            findings.invalid(one.as_str(), 0, "must not be 0 for the In operator");
        }
        if known.contains(value) {
            findings.0.push(Cause::duplicate(one, &json!(value)));
        } else {
            known.push(*value);
        }
    }
    if !values.is_sorted() {
        findings.invalid(field, json!(values), "must be ordered");
    }
}

fn pod_conditions(
    findings: &mut Findings,
    rule: &str,
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
) {
    let at = format!("{rule}.onPodConditions");
    if patterns.len() > PATTERNS_MAX {
        findings
            .0
            .push(Cause::too_many(at.as_str(), patterns.len(), PATTERNS_MAX));
    }
    for (position, pattern) in patterns.iter().enumerate() {
        if !is_qualified_name(&pattern.type_) {
            let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
            findings.invalid(
                format!("{at}[{position}].type"),
                pattern.type_.as_str(),
                why,
            );
        }
        let field = format!("{at}[{position}].status");
        match pattern.status.as_str() {
            "" => findings.required(field, ""),
            "True" | "False" | "Unknown" => {}
            other => findings.not_supported(field, other, &["False", "True", "Unknown"]),
        }
    }
}

fn success_policy(findings: &mut Findings, spec: &JobSpec, policy: &SuccessPolicy) {
    if !is_indexed(spec) {
        findings.invalid(
            "spec.successPolicy",
            json!(policy),
            "requires indexed completion mode",
        );
        return;
    }
    let field = "spec.successPolicy.rules";
    if policy.rules.is_empty() {
        findings.required(
            field,
            "at least one rules must be specified when the successPolicy is specified",
        );
    }
    if policy.rules.len() > RULES_MAX {
        findings
            .0
            .push(Cause::too_many(field, policy.rules.len(), RULES_MAX));
    }
    let completions = spec.completions.unwrap_or(0);
    for (position, rule) in policy.rules.iter().enumerate() {
        let at = format!("{field}[{position}]");
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            findings.required(
                at,
                "at least one of succeededCount or succeededIndexes must be specified",
            );
            continue;
        }
        let mut total = None;
        if let Some(text) = &rule.succeeded_indexes {
            let field = format!("{at}.succeededIndexes");
            if text.len() > INDEXES_BYTES_MAX {
                findings
                    .0
                    .push(Cause::too_long(field.as_str(), INDEXES_BYTES_MAX));
            }
            match indexes::parse(text, completions) {
                Ok(intervals) => total = Some(indexes::count(&intervals)),
                Err(why) => {
                    let why = format!("error parsing succeededIndexes: {why}");
                    findings.invalid(field, text.as_str(), &why);
                }
            }
        }
        if let Some(count) = rule.succeeded_count {
            let field = format!("{at}.succeededCount");
            if count < 0 {
                findings.invalid(field.as_str(), count, NOT_NEGATIVE);
            }
            if count > completions {
                let why = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                findings.invalid(field.as_str(), count, &why);
            }
            if let Some(total) = total.filter(|total| count > *total) {
                let why = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                findings.invalid(field, count, &why);
            }
        }
    }
}

/// What is allowed, and yet worth a word.
pub(crate) fn warnings(job: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    if !is_dns_label(name) {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: {name}"
        ));
    }
    warnings.extend(secrets_without_name(&job["spec"]["template"]["spec"]));
    let spec = &job["spec"];
    let above = |key: &str, bound: i32| {
        spec[key]
            .as_i64()
            .is_some_and(|value| value > i64::from(bound))
    };
    if spec["completionMode"] == INDEXED
        && above("completions", MANY_COMPLETIONS)
        && above("parallelism", MANY_PARALLELISM_MAX)
    {
        warnings.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".into());
    }
    warnings
}

fn secrets_without_name(spec: &Value) -> impl Iterator<Item = String> {
    let secrets = spec["imagePullSecrets"].as_array().into_iter().flatten();
    let names = secrets.map(|secret| secret["name"].as_str().unwrap_or_default());
    let empty = names.enumerate().filter(|(_, name)| name.is_empty());
    empty.map(|(at, _)| {
        format!("spec.template.spec.imagePullSecrets[{at}].name: invalid empty name \"\"")
    })
}
