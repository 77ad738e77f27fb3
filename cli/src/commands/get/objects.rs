//! Jobs and Pods, in the columns that the cluster itself gives them.

use http::Request;
use serde::Deserialize;
use serde_json::Value;

use crate::commands::cluster::Cluster;
use crate::commands::table::{Column, NONE, Row, Shape, View, json};
use crate::error::Error;

/// A kind of object and where it is.
pub(super) struct Place {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    api_version: &'static str,
    /// What its name is written with.
    title: &'static str,
}

pub(super) const JOBS: Place = Place {
    group: "/apis/batch/v1",
    plural: "jobs",
    kind: "Job",
    api_version: "batch/v1",
    title: "job.batch",
};

pub(super) const PODS: Place = Place {
    group: "/api/v1",
    plural: "pods",
    kind: "Pod",
    api_version: "v1",
    title: "pod",
};

/// The Kubernetes API: a table, with the objects in it.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Objects of one kind in a cluster.
pub(super) struct Source {
    cluster: Cluster,
    place: Place,
    path: String,
    shape: Shape,
    all_namespaces: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    column_definitions: Vec<Definition>,
    #[serde(default)]
    rows: Vec<TableRow>,
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    #[serde(default)]
    priority: i64,
}

#[derive(Deserialize)]
struct TableRow {
    cells: Vec<Value>,
    object: Value,
}

impl Source {
    pub(super) fn new(
        cluster: Cluster,
        place: Place,
        name: Option<String>,
        selector: Option<String>,
        all_namespaces: bool,
    ) -> Self {
        let mut path = place.group.to_owned();
        if !all_namespaces || name.is_some() {
            path.push_str(&format!("/namespaces/{}", encoded(&cluster.namespace)));
        }
        path.push_str(&format!("/{}", place.plural));
        if let Some(name) = &name {
            path.push_str(&format!("/{}", encoded(name)));
        }
        path.push_str("?includeObject=Object");
        if let Some(selector) = selector {
            path.push_str(&format!("&labelSelector={}", encoded(&selector)));
        }
        Self {
            cluster,
            place,
            path,
            shape: if name.is_some() {
                Shape::One
            } else {
                Shape::List
            },
            all_namespaces,
        }
    }

    pub(super) async fn look(&self) -> Result<View, Error> {
        let request = Request::get(&self.path).header("accept", TABLE);
        let answer = self.cluster.call(request, None).await?;
        let table: Table = serde_json::from_value(answer)
            .map_err(|error| Error::disk(format!("the cluster's table: {error}")))?;
        let mut columns: Vec<Column> = table
            .column_definitions
            .into_iter()
            .map(|definition| Column {
                title: definition.name.to_uppercase(),
                is_wide: definition.priority > 0,
            })
            .collect();
        if self.all_namespaces {
            let title = "NAMESPACE".into();
            columns.insert(
                0,
                Column {
                    title,
                    is_wide: false,
                },
            );
        }
        let rows = table.rows.into_iter().map(|row| self.row(row));
        Ok(View {
            columns,
            rows: rows.collect::<Result<_, Error>>()?,
            shape: self.shape,
        })
    }

    fn row(&self, row: TableRow) -> Result<Row, Error> {
        let TableRow { cells, mut object } = row;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut cells: Vec<String> = cells.iter().map(cell).collect();
        if self.all_namespaces {
            cells.insert(0, text(&object["metadata"]["namespace"]));
        }
        // In a table a server may leave out what all of its objects are.
        if let Some(fields) = object.as_object_mut() {
            let known = [
                ("apiVersion", self.place.api_version),
                ("kind", self.place.kind),
            ];
            for (field, value) in known {
                fields.insert(field.into(), value.into());
            }
        }
        Ok(Row {
            name: format!("{}/{}", self.place.title, text(&object["metadata"]["name"])),
            version: format!(
                "{} {}",
                text(&object["metadata"]["uid"]),
                text(&object["metadata"]["resourceVersion"])
            ),
            cells,
            json: json(&object)?,
        })
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => NONE.into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes a text so that it is one part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn a_text_stays_one_part_of_an_address() {
        assert_eq!(encoded("app in (a,b)"), "app%20in%20%28a%2Cb%29");
        assert_eq!(encoded("../x"), "..%2Fx");
    }
}
