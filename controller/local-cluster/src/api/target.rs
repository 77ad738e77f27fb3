//! What a request is about: the parts of its path and its query.

use axum::extract::Query;
use http::Uri;
use serde::Deserialize;

use super::error::{ApiError, Result};
use crate::objects::resource::Resource;
use crate::objects::selector::Selector;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) resource: Resource,
    /// Absent for what has no namespace, and for lists over all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) part: Part,
}

/// Which part of an object a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it, except what has a path of its own.
    Main,
    Status,
    Log,
    Scale,
    Eviction,
}

impl Target {
    /// Reads a path such as `/apis/batch/v1/namespaces/default/jobs/work/status`.
    pub(crate) fn parse(path: &str) -> Result<Self> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let group = match (segments.next(), segments.next(), segments.next()) {
            (Some("api"), Some("v1"), Some(first)) => return Self::within("", first, segments),
            (Some("apis"), Some(group), Some("v1")) => group,
            _ => return Err(ApiError::no_such_path()),
        };
        let first = segments.next().ok_or_else(ApiError::no_such_path)?;
        Self::within(group, first, segments)
    }

    fn within<'a>(
        group: &str,
        first: &'a str,
        rest: impl Iterator<Item = &'a str>,
    ) -> Result<Self> {
        let rest: Vec<&str> = rest.collect();
        let found = |plural: &str| Resource::find(group, plural).ok_or_else(ApiError::no_such_path);
        let (resource, namespace, tail) = match (first, rest.as_slice()) {
            ("namespaces", [namespace, plural, tail @ ..]) if *plural != "status" => {
                let resource = found(plural)?;
                if !resource.is_namespaced() {
                    return Err(ApiError::no_such_path());
                }
                (resource, Some((*namespace).to_owned()), tail)
            }
            (plural, tail) => (found(plural)?, None, tail),
        };
        let (name, part) = match tail {
            [] => (None, Part::Main),
            [name] => (Some(*name), Part::Main),
            [name, "status"] if resource.has_status() => (Some(*name), Part::Status),
            [name, "log"] if resource == Resource::Pods => (Some(*name), Part::Log),
            [name, "scale"] if resource == Resource::Jobs => (Some(*name), Part::Scale),
            [name, "eviction"] if resource == Resource::Pods => (Some(*name), Part::Eviction),
            _ => return Err(ApiError::no_such_path()),
        };
        // One object of a namespaced resource is found in its namespace only.
        if name.is_some() && resource.is_namespaced() && namespace.is_none() {
            return Err(ApiError::no_such_path());
        }
        Ok(Self {
            resource,
            namespace,
            name: name.map(str::to_owned),
            part,
        })
    }

    /// The namespace as the store has it.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn selector(&self, parameters: &Parameters) -> Result<Selector> {
        let (labels, fields) = (&parameters.label_selector, &parameters.field_selector);
        Selector::parse(self.resource, labels, fields).map_err(ApiError::bad_request)
    }
}

/// The query of a request. What is not known is ignored, as Kubernetes does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Parameters {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) watch: String,
    pub(crate) resource_version: String,
    pub(crate) send_initial_events: String,
    pub(crate) allow_watch_bookmarks: String,
    pub(crate) timeout_seconds: String,
    pub(crate) limit: String,
    #[serde(rename = "continue")]
    pub(crate) continue_: String,
    pub(crate) field_validation: String,
    pub(crate) dry_run: String,
    pub(crate) propagation_policy: String,
    pub(crate) grace_period_seconds: String,
    pub(crate) container: String,
    pub(crate) tail_lines: String,
    pub(crate) timestamps: String,
    pub(crate) follow: String,
    pub(crate) previous: String,
    pub(crate) restart_count: String,
    pub(crate) limit_bytes: String,
    pub(crate) since_seconds: String,
    pub(crate) since_time: String,
    pub(crate) include_object: String,
    pub(crate) field_manager: String,
    pub(crate) force: String,
}

impl Parameters {
    pub(crate) fn of(uri: &Uri) -> Result<Self> {
        let query = Query::<Self>::try_from_uri(uri);
        query
            .map(|query| query.0)
            .map_err(|error| ApiError::bad_request(error.body_text()))
    }

    /// Whether nothing is to be stored.
    pub(crate) fn is_dry(&self) -> bool {
        self.dry_run == "All"
    }
}

/// Whether a switch of a query is on.
pub(crate) fn is_on(text: &str) -> bool {
    matches!(text, "true" | "True" | "1")
}

/// Reads a number of a query, if it is there.
pub(crate) fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| ApiError::bad_request(format!("{name}: {text:?} is no number"));
    text.parse().map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<(Resource, Option<&str>, Option<&str>, Part)>) {
        let target = Target::parse(path).ok();
        let parts = target.as_ref().map(|target| {
            let Target {
                resource,
                namespace,
                name,
                part,
            } = target;
            (*resource, namespace.as_deref(), name.as_deref(), *part)
        });
        assert_eq!(parts, expected, "{path}");
    }

    #[test]
    fn paths_name_lists_objects_and_parts() {
        check(
            "/api/v1/pods",
            Some((Resource::Pods, None, None, Part::Main)),
        );
        check(
            "/api/v1/namespaces",
            Some((Resource::Namespaces, None, None, Part::Main)),
        );
        check(
            "/api/v1/namespaces/a",
            Some((Resource::Namespaces, None, Some("a"), Part::Main)),
        );
        check(
            "/api/v1/namespaces/a/status",
            Some((Resource::Namespaces, None, Some("a"), Part::Status)),
        );
        check(
            "/api/v1/namespaces/a/pods/b/log",
            Some((Resource::Pods, Some("a"), Some("b"), Part::Log)),
        );
        check(
            "/apis/batch/v1/namespaces/a/jobs",
            Some((Resource::Jobs, Some("a"), None, Part::Main)),
        );
        check(
            "/apis/batch/v1/namespaces/a/jobs/b/status",
            Some((Resource::Jobs, Some("a"), Some("b"), Part::Status)),
        );
        for path in [
            "/",
            "/api/v1",
            "/api/v1/jobs",
            "/apis/batch/v1/jobs/b",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/exec",
            "/apis/batch/v2/jobs",
        ] {
            check(path, None);
        }
    }
}
