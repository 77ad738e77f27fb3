//! Objects for people and for programs: tables, JSON, YAML, names.

use std::time::Duration;

use clap::ValueEnum;
use gangline_worker::protocol::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::output;

/// How objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Aligned columns
    Table,
    /// Aligned columns, more of them
    Wide,
    /// Kind and name, one a line
    Name,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) title: String,
    /// It is left out of a table that is not wide.
    pub(crate) is_wide: bool,
}

/// One object.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its kind and name.
    pub(crate) name: String,
    /// Another one means that it has changed.
    pub(crate) version: String,
    pub(crate) cells: Vec<String>,
    /// All of it, as indented JSON: what passes through unread stays byte for byte.
    pub(crate) json: String,
}

/// How many objects are asked for, which says how they are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One, by its name.
    One,
    /// An array.
    Many,
    /// A List, as Kubernetes has them.
    List,
}

/// Objects of one kind.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    pub(crate) shape: Shape,
}

/// Returns columns of these titles, the wide ones last.
pub(crate) fn columns(titles: &[&str], wide: &[&str]) -> Vec<Column> {
    let column = |title: &&str, is_wide| Column {
        title: (*title).to_owned(),
        is_wide,
    };
    let narrow = titles.iter().map(|title| column(title, false));
    narrow
        .chain(wide.iter().map(|title| column(title, true)))
        .collect()
}

/// Returns an object as indented JSON.
pub(crate) fn json(object: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(object).map_err(Error::disk)
}

/// Writes views of the same objects, one after the other.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    /// The width of each column so far.
    widths: Vec<usize>,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            widths: Vec::new(),
        }
    }

    /// Writes all of it.
    pub(crate) fn print(&mut self, view: &View) -> Result<(), Error> {
        let rows: Vec<&Row> = view.rows.iter().collect();
        let text = match self.format {
            Format::Table | Format::Wide => self.table(&view.columns, &rows, true),
            Format::Name => names(&rows),
            Format::Json => together(&rows, view.shape) + "\n",
            Format::Yaml => output::yaml(&value(&together(&rows, view.shape))?)?,
        };
        write(&text)
    }

    /// Writes objects that have changed, each by itself.
    pub(crate) fn print_changes(&mut self, columns: &[Column], rows: &[&Row]) -> Result<(), Error> {
        let text = match self.format {
            Format::Table | Format::Wide => self.table(columns, rows, false),
            Format::Name => names(rows),
            Format::Json => rows.iter().map(|row| format!("{}\n", row.json)).collect(),
            Format::Yaml => {
                let mut text = String::new();
                for row in rows {
                    text.push_str("---\n");
                    text.push_str(&output::yaml(&value(&row.json)?)?);
                }
                text
            }
        };
        write(&text)
    }

    fn table(&mut self, columns: &[Column], rows: &[&Row], with_titles: bool) -> String {
        let is_shown = |index: &usize| self.format == Format::Wide || !columns[*index].is_wide;
        let shown: Vec<usize> = (0..columns.len()).filter(is_shown).collect();
        let titles: Vec<&str> = columns.iter().map(|column| &*column.title).collect();
        let cells = rows
            .iter()
            .map(|row| row.cells.iter().map(String::as_str).collect());
        let titles = (with_titles && !rows.is_empty()).then_some(titles);
        let lines: Vec<Vec<&str>> = titles.into_iter().chain(cells).collect();
        self.widths.resize(columns.len(), 0);
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for line in lines {
            let start = text.len();
            for index in &shown {
                let cell = line.get(*index).copied().unwrap_or_default();
                text.push_str(&format!("{cell:width$}   ", width = self.widths[*index]));
            }
            text.truncate(start + text[start..].trim_end().len());
            text.push('\n');
        }
        text
    }
}

fn write(text: &str) -> Result<(), Error> {
    output::data(text.as_bytes()).map_err(|error| Error::disk(format!("stdout: {error}")))
}

fn names(rows: &[&Row]) -> String {
    rows.iter().map(|row| format!("{}\n", row.name)).collect()
}

fn value(json: &str) -> Result<Value, Error> {
    serde_json::from_str(json).map_err(Error::disk)
}

/// Puts objects together without reading them again.
fn together(rows: &[&Row], shape: Shape) -> String {
    let indented = |by: &str| {
        let objects: Vec<String> = rows
            .iter()
            .map(|row| format!("{by}{}", row.json.replace('\n', &format!("\n{by}"))))
            .collect();
        objects.join(",\n")
    };
    match (shape, rows) {
        (Shape::One, [row]) => row.json.clone(),
        (Shape::One | Shape::Many, []) => "[]".into(),
        (Shape::One | Shape::Many, _) => format!("[\n{}\n]", indented("  ")),
        (Shape::List, []) => {
            "{\n  \"apiVersion\": \"v1\",\n  \"items\": [],\n  \"kind\": \"List\"\n}".into()
        }
        (Shape::List, _) => format!(
            "{{\n  \"apiVersion\": \"v1\",\n  \"items\": [\n{}\n  ],\n  \"kind\": \"List\"\n}}",
            indented("    ")
        ),
    }
}

/// What stands for nothing.
pub(crate) const NONE: &str = "<none>";

/// Returns how long ago something was, as Kubernetes writes it: the largest unit or two.
pub(crate) fn age(then: Timestamp) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "an age for people; nothing is decided by it"
    )]
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    short(now.saturating_sub(Duration::from_millis(then.0)))
}

/// Returns a time as people read it: minutes are told with their seconds up to ten, and so on
/// (k8s.io/apimachinery, `duration.HumanDuration`).
pub(crate) fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{part}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(shape: Shape) -> View {
        let row = |name: &str, wide: &str| Row {
            name: format!("queue/{name}"),
            version: String::new(),
            cells: vec![name.into(), "7".into(), wide.into()],
            json: format!("{{\n  \"name\": \"{name}\"\n}}"),
        };
        View {
            columns: columns(&["NAME", "READY"], &["UID"]),
            rows: vec![row("a", ""), row("longer", "u")],
            shape,
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let view = view(Shape::Many);
        let rows: Vec<&Row> = view.rows.iter().collect();
        let table = Printer::new(Format::Table).table(&view.columns, &rows, true);
        assert_eq!(table, "NAME     READY\na        7\nlonger   7\n");
        let mut wide = Printer::new(Format::Wide);
        let table = wide.table(&view.columns, &rows, true);
        assert_eq!(
            table,
            "NAME     READY   UID\na        7\nlonger   7       u\n"
        );
        let later = wide.table(&view.columns, &rows[..1], false);
        assert_eq!(later, "a        7\n");
    }

    #[test]
    fn objects_are_put_together_as_json() {
        for (shape, path) in [(Shape::Many, "/1/name"), (Shape::List, "/items/1/name")] {
            let view = view(shape);
            let rows: Vec<&Row> = view.rows.iter().collect();
            let json = value(&together(&rows, shape)).unwrap();
            assert_eq!(json.pointer(path).unwrap(), "longer", "{json}");
            assert_eq!(
                together(&rows, shape),
                serde_json::to_string_pretty(&json).unwrap()
            );
            let none = value(&together(&[], shape)).unwrap();
            assert_eq!(
                together(&[], shape),
                serde_json::to_string_pretty(&none).unwrap()
            );
        }
        let one = view(Shape::One);
        assert_eq!(
            together(&[&one.rows[0]], Shape::One),
            "{\n  \"name\": \"a\"\n}"
        );
    }

    #[test]
    fn times_are_written_as_kubernetes_does() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (3_600, "60m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (700_000, "8d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }
}
