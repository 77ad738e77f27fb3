//! What the documents list is what the code has.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use gangline_tests::server::TOKEN;
use gangline_tests::{Api, TestServer};
use gangline_worker::protocol::ErrorCode;
use reqwest::Method;
use serde_json::{Value, json};

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_error_code_has_a_paragraph_and_every_paragraph_a_code() {
    let text = read("docs/errors.md");
    let headings: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
        .collect();
    assert_eq!(headings, ErrorCode::ALL.map(ErrorCode::as_str));
    for part in text.split("## `").skip(1) {
        let (code, paragraph) = part.split_once("`\n\n").unwrap();
        let status = paragraph.split('.').next().unwrap();
        assert!(
            status.parse::<u16>().is_ok_and(|status| status >= 400),
            "{code}: {status}"
        );
        assert!(paragraph.trim().len() > 40, "{code}");
    }
}

#[test]
fn every_bound_is_in_the_list_with_its_value() {
    let source = read("protocol/src/limits.rs");
    let text = read("docs/limits.md");
    let mut bounds = 0;
    for line in source.split(";\n") {
        let Some((_, bound)) = line.split_once("pub const ") else {
            continue;
        };
        let (name, rest) = bound.split_once(": ").unwrap();
        let (_, value) = rest.split_once(" = ").unwrap();
        let row = format!("| `{name}` | `{value}` | ");
        assert!(text.contains(&row), "docs/limits.md lacks: {row}");
        bounds += 1;
    }
    assert!(bounds > 30);
    assert_eq!(text.matches("\n| `").count(), bounds);
}

/// The names and labels of all series, as `/metrics` tells them.
async fn series() -> HashMap<String, HashSet<String>> {
    let server = TestServer::start().await;
    let queue = Api::new(&server.url, Some(TOKEN)).fresh_queue();
    queue.push(&[json!(1)]).await;
    let metrics = queue.api.send(Method::GET, "/metrics", &[], Vec::new());
    let text = metrics.await.text().await.unwrap();
    let mut series: HashMap<String, HashSet<String>> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let pairs = labels.split(['{', ',', '}', ' ']);
        let found = pairs.filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()));
        series.entry(name.to_owned()).or_default().extend(found);
    }
    series
}

/// The questions to Prometheus in the dashboard and in the rules.
fn questions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if matches!(&**name, "expr" | "definition") => {
                            found.push(text.to_owned());
                        }
                        _ => collect(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(
        &serde_json::from_str(&read("docs/grafana.json")).unwrap(),
        &mut found,
    );
    let alerts = read("docs/alerts.yaml");
    let rules = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    found.extend(rules.map(str::to_owned));
    found
}

#[tokio::test]
async fn dashboard_and_alerts_ask_for_series_and_labels_that_there_are() {
    let series = series().await;
    let common = ["instance", "le"].map(str::to_owned);
    let mut asked = BTreeSet::new();
    for question in questions() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let names = question
            .split(|c| !is_part(c))
            .filter(|word| word.starts_with("gangline_"));
        let names: Vec<&str> = names.collect();
        assert!(!names.is_empty(), "{question}");
        let mut labels: HashSet<&String> = common.iter().collect();
        for name in names {
            let known = series.get(name);
            labels.extend(known.unwrap_or_else(|| panic!("there is no {name}: {question}")));
            asked.insert(name.to_owned());
        }
        let by = question.split(" by (").skip(1).flat_map(|rest| {
            let (list, _) = rest.split_once(')').unwrap();
            list.split(", ")
        });
        let matched = question.split(['{', ',', ' ']).filter_map(|part| {
            let (label, _) = part.split_once(['=', '!'])?;
            (!label.is_empty() && label.chars().all(is_part)).then_some(label)
        });
        for label in by.chain(matched) {
            assert!(labels.contains(&label.to_owned()), "no {label}: {question}");
        }
    }
    assert!(asked.len() > 10, "{asked:?}");
}

/// The path below a queue that a call of the page begins with.
fn below_queue(call: &str) -> &str {
    let end = call.find(|letter: char| !letter.is_ascii_lowercase() && letter != '/');
    &call[..end.unwrap_or(call.len())]
}

#[test]
fn every_panel_of_the_page_is_a_call_of_the_api() {
    let api: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let page = read("docs/dashboard.md");
    let told: BTreeSet<&str> = page.split("`GET …").skip(1).map(below_queue).collect();
    for call in &told {
        let path = &api["paths"][format!("/v1/queues/{{queue}}{call}")]["get"];
        assert!(path.is_object(), "there is no GET …{call}");
    }
    // What the page of one queue looks up.
    let source = read("server/src/dashboard/job.js");
    let mut asked: BTreeSet<&str> = source
        .split("path(")
        .skip(1)
        .filter_map(|rest| rest.strip_prefix(['"', '`']))
        .map(below_queue)
        .collect();
    assert!(asked.len() > 4, "{asked:?}");
    asked.insert("/results");
    assert_eq!(told, asked);
}
