//! Objects as rows of a table, for clients that print them: the columns and cells of Kubernetes.

mod age;
mod cells;
mod pod;

use http::{HeaderMap, header};
use jiff::Timestamp;
use serde_json::{Value, json};

#[cfg(test)]
pub(crate) use cells::of as cells_of;

use super::target::Parameters;
use crate::objects::Object;
use crate::objects::resource::Resource;

/// What of its object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// What a table is to include, for a client that asks for one.
pub(crate) fn asked(headers: &HeaderMap, parameters: &Parameters) -> Option<Include> {
    is_wanted(headers).then_some(match parameters.include_object.as_str() {
        "None" => Include::Nothing,
        "Object" => Include::Object,
        _ => Include::Metadata,
    })
}

/// Whether a client wants a table before anything else that is served.
fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let ranges = accept.unwrap_or_default().split(',');
    let mut known = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_json = matches!(parts.next(), Some("application/json" | "*/*" | ""));
        let parameters: Vec<&str> = parts.collect();
        let is_table = parameters.contains(&"as=Table");
        // Only this version is written.
        let is_known = is_json && (!is_table || parameters.contains(&"v=v1"));
        is_known.then_some(is_table)
    });
    known.next().unwrap_or(false)
}

/// A table of objects. Its columns are left out where the client knows them already.
pub(crate) fn table<'a>(
    resource: Resource,
    objects: impl Iterator<Item = &'a Object>,
    metadata: &Value,
    include: Include,
    with_columns: bool,
) -> Value {
    let now = Timestamp::now();
    let rows = objects.map(|object| {
        let value = object.value();
        json!({
            "cells": cells::of(resource, &value, now),
            "object": included(resource, &value, include),
        })
    });
    let rows: Value = rows.collect();
    let columns = with_columns.then(|| columns(resource));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn included(resource: Resource, object: &Value, include: Include) -> Value {
    match include {
        Include::Nothing => Value::Null,
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        }),
        Include::Object => {
            let mut value = object.clone();
            value["kind"] = resource.kind().into();
            value["apiVersion"] = resource.api_version().into();
            value
        }
    }
}

fn columns(resource: Resource) -> Value {
    let columns = cells::COLUMNS.iter().find(|(of, _)| *of == resource);
    let columns = columns.map(|(_, columns)| *columns).unwrap_or_default();
    let columns = columns.iter().map(|column| {
        // A star marks what only `-o wide` shows.
        let (name, priority) = match column.strip_prefix('*') {
            Some(name) => (name, 1),
            None => (*column, 0),
        };
        let (type_, format) = match name {
            "Name" => ("string", "name"),
            "Data" | "Secrets" | "Count" => ("integer", ""),
            _ => ("string", ""),
        };
        json!({
            "name": name, "type": type_, "format": format, "priority": priority, "description": "",
        })
    });
    columns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(is_wanted(&headers), expected, "{accept}");
    }

    #[test]
    fn a_table_is_given_to_who_asks_for_it_first() {
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            true,
        );
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            false,
        );
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            false,
        );
        check(
            "application/json, application/json;as=Table;v=v1;g=meta.k8s.io",
            false,
        );
        check("*/*", false);
    }
}
