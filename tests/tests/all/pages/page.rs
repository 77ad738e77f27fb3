//! A page of the documents: its sections, the files in them, and what its terminals show.

use std::fmt;
use std::path::{Path, PathBuf};

/// Stands in a line for what differs from run to run.
const ANYTHING: char = '…';
/// A line of its own that stands for any number of lines.
const ANY_LINES: &str = "⋮";
/// Says that the lines after each command of the next block may come in any order.
const ANY_ORDER: &str = "<!-- any order -->";
/// Says that the sections of a page follow each other in one directory, on one `gangline up`.
const IN_ORDER: &str = "<!-- in order, with gangline up -->";

pub(super) fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// What a page shows.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) in_order: bool,
    /// The manifests that lie beside it.
    pub(super) beside: Vec<(String, String)>,
    pub(super) sections: Vec<Section>,
}

/// What stands under one heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) title: String,
    /// Names and texts of manifests, scripts and other files.
    pub(super) files: Vec<(String, String)>,
    pub(super) terminals: Vec<Terminal>,
}

/// A block that shows a terminal.
#[derive(Debug, Default)]
pub(super) struct Terminal {
    pub(super) any_order: bool,
    pub(super) commands: Vec<Shown>,
}

/// A command, and what is printed after it.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) command: String,
    pub(super) lines: Vec<String>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.command.replace('\n', "\n> "))?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Page {
    pub(super) fn read(document: &str) -> Self {
        let text = std::fs::read_to_string(docs().join(document)).unwrap();
        let mut page = Self {
            in_order: text.contains(IN_ORDER),
            beside: beside(document),
            sections: vec![Section::default()],
        };
        let mut any_order = false;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let section = page.sections.last_mut().unwrap();
            if let Some(language) = line.strip_prefix("```") {
                let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                let named = file(&block);
                match language {
                    "console" => section.terminals.push(Terminal {
                        any_order: std::mem::take(&mut any_order),
                        commands: commands(&block),
                    }),
                    "yaml" | "toml" if named.is_none() => {
                        panic!("{}: no name in the first line of {block:?}", section.title)
                    }
                    _ => section.files.extend(named),
                }
            } else if line == ANY_ORDER {
                any_order = true;
            } else if line.starts_with("##") {
                let title = line.trim_start_matches(['#', ' ']).to_owned();
                page.sections.push(Section {
                    title,
                    ..Section::default()
                });
            }
        }
        page
    }

    /// Whether there is anything to run.
    pub(super) fn shows_a_terminal(&self) -> bool {
        let mut sections = self.sections.iter();
        sections.any(|section| !section.terminals.is_empty())
    }
}

/// Returns the manifests beside a document, of which `docs` has none that commands are for.
fn beside(document: &str) -> Vec<(String, String)> {
    let document = docs().join(document);
    let dir = document.parent().unwrap();
    if dir == docs() {
        return Vec::new();
    }
    let files = std::fs::read_dir(dir).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.contains(".yaml"))
        .map(|name| {
            (
                name.clone(),
                std::fs::read_to_string(dir.join(name)).unwrap(),
            )
        })
        .collect()
}

/// Returns the name of a file that a block begins with, as in `# count.py`, and its text.
fn file(block: &[&str]) -> Option<(String, String)> {
    let name = block.first()?.strip_prefix("# ")?;
    let is_name = name.contains('.') && !name.contains(' ') && !name.ends_with('.');
    is_name.then(|| (name.to_owned(), block.join("\n") + "\n"))
}

/// A command stands after `$ ` and goes on in lines after `> `.
fn commands(block: &[&str]) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Shown {
                command: command.to_owned(),
                lines: Vec::new(),
            }),
            (None, Some(last)) => match line.strip_prefix("> ") {
                Some(more) if last.lines.is_empty() => {
                    last.command.push('\n');
                    last.command.push_str(more);
                }
                _ => last.lines.push((*line).to_owned()),
            },
            (None, None) => panic!("no command before {line:?}"),
        }
    }
    commands
}

/// Whether what was printed is what is shown.
pub(super) fn fits(shown: &[String], printed: &str, any_order: bool) -> bool {
    let mut printed: Vec<&str> = printed.lines().collect();
    if !any_order {
        return lines_fit(shown, &printed);
    }
    if printed.len() != shown.len() {
        return false;
    }
    // Those that leave least open choose first.
    let mut shown: Vec<&String> = shown.iter().collect();
    shown.sort_by_key(|line| std::cmp::Reverse(line.replace(ANYTHING, "").len()));
    shown.into_iter().all(|line| {
        let place = printed.iter().position(|other| line_fits(line, other));
        place.map(|place| printed.swap_remove(place)).is_some()
    })
}

fn lines_fit(shown: &[String], printed: &[&str]) -> bool {
    let Some((first, more)) = shown.split_first() else {
        return printed.is_empty();
    };
    if first == ANY_LINES {
        return (0..=printed.len()).any(|skipped| lines_fit(more, &printed[skipped..]));
    }
    printed
        .split_first()
        .is_some_and(|(line, rest)| line_fits(first, line) && lines_fit(more, rest))
}

fn line_fits(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split(ANYTHING);
    let first = parts.next().unwrap();
    let Some(mut rest) = printed.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn an_ellipsis_stands_for_a_part_of_a_line() {
    assert!(line_fits(
        "Created pod: hello-…",
        "Created pod: hello-x7k2p"
    ));
    assert!(line_fits("… ago, … left", "3s ago, 4s left"));
    assert!(!line_fits(
        "Created pod: hello-…",
        "Deleted pod: hello-x7k2p"
    ));
    assert!(!line_fits("done", "done twice"));
    let two = ["a …".to_owned(), "a b".to_owned()];
    assert!(fits(&two, "a b\na c\n", true));
    assert!(!fits(&two, "a b\na c\n", false));
    assert!(!fits(&two, "a b\n", true));
}

#[test]
fn a_line_of_dots_stands_for_any_lines() {
    let shown = ["a", ANY_LINES, "z"].map(str::to_owned);
    assert!(fits(&shown, "a\nz\n", false));
    assert!(fits(&shown, "a\nb\nc\nz\n", false));
    assert!(!fits(&shown, "a\nb\n", false));
}

#[test]
fn a_command_may_go_on_in_further_lines() {
    let shown = commands(&["$ for i in 1 2; do", ">   echo $i", "> done", "1", "2"]);
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].command, "for i in 1 2; do\n  echo $i\ndone");
    assert_eq!(shown[0].lines, ["1", "2"]);
}
