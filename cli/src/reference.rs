//! `docs/cli.md` is what the command's own arguments say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction};

use crate::examples::each_command;

const INTRODUCTION: &str = "\
# The command line

<!-- Made from the arguments of the command: UPDATE_SNAPSHOTS=1 cargo test -p gangline reference -->

Data goes to stdout, everything else to stderr.
`-o` is always the format of what is written, `-f` always a manifest.
An argument with a variable beside it may be given by that variable.
Every command takes `--log`, a level or directives as in `info,gangline_server=debug`; `warn` when absent; `GANGLINE_LOG`; and `--log-format`, `text` or `json`; `GANGLINE_LOG_FORMAT`.
`gangline COMMAND --help` says the same in a terminal, `gangline completions` and `gangline man` make it known to shells and to `man`.

";

/// Groups of arguments that many commands take, written once.
const SHARED: [&str; 4] = ["Items", "Program", "Queue service", "Kubernetes"];

/// Writes the whole page.
fn page() -> String {
    let mut list = String::from("| command | does |\n| --- | --- |\n");
    let mut sections = String::new();
    let mut shared = BTreeMap::new();
    each_command(&mut |path, command| {
        let name = format!("gangline {}", path.join(" "));
        let about = about(command);
        let _ = writeln!(
            list,
            "| [`{name}`](#{}) | {} |",
            anchor(&name),
            cell(&about)
        );
        sections += &section(&name, &about, command, &mut shared);
    });
    for title in SHARED {
        let table = &shared[title];
        let _ = write!(sections, "\n## {title}\n{table}");
    }
    format!("{INTRODUCTION}{list}{sections}")
}

fn about(command: &clap::Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

/// Escapes what would end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn section(
    name: &str,
    about: &str,
    command: &clap::Command,
    shared: &mut BTreeMap<&'static str, String>,
) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let mut text = format!("\n## {name}\n\n{about}.\n\n```text\n{usage}\n```\n");
    let after = command.get_after_help().map(ToString::to_string);
    for part in after.iter().flat_map(|after| after.split("\n\n")) {
        match part.strip_prefix("Examples:\n") {
            Some(lines) => {
                let lines: Vec<&str> = lines.lines().map(str::trim_start).collect();
                let _ = write!(text, "\n```sh\n{}\n```\n", lines.join("\n"));
            }
            None => {
                let _ = write!(text, "\n{}\n", part.replace('\n', " "));
            }
        }
    }
    text + &arguments(command, shared)
}

/// Writes one table for each group, in the order in which the help has them, but for those that
/// many commands have.
fn arguments(command: &clap::Command, shared: &mut BTreeMap<&'static str, String>) -> String {
    let shown = command.get_arguments().filter(|argument| {
        !argument.is_hide_set() && !argument.is_global_set() && argument.get_id() != "help"
    });
    let mut groups: Vec<(&str, Vec<&Arg>)> = vec![("Arguments", vec![]), ("Options", vec![])];
    for argument in shown {
        let positional = argument.is_positional();
        let otherwise = if positional { "Arguments" } else { "Options" };
        let title = argument.get_help_heading().unwrap_or(otherwise);
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, group)) => group.push(argument),
            None => groups.push((title, vec![argument])),
        }
    }
    groups.retain(|(_, group)| !group.is_empty());
    let mut text = String::new();
    let mut elsewhere = Vec::new();
    for (title, group) in groups {
        match SHARED.iter().find(|shared| **shared == title) {
            None => text += &table(title, &group),
            Some(title) => {
                // A command's own table is the same, or the page would have to say how it differs.
                let table = table("Arguments", &group);
                assert_eq!(shared.entry(title).or_insert_with(|| table.clone()), &table);
                elsewhere.push(format!("[{title}](#{})", anchor(title)));
            }
        }
    }
    if !elsewhere.is_empty() {
        let _ = write!(text, "\nAlso takes: {}.\n", elsewhere.join(", "));
    }
    text
}

fn table(title: &str, group: &[&Arg]) -> String {
    let mut text = format!("\n| {title} | |\n| --- | --- |\n");
    for argument in group {
        let _ = writeln!(
            text,
            "| {} | {} |",
            cell(&written(argument)),
            cell(&explained(argument))
        );
    }
    text
}

/// Returns how an argument is written.
fn written(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let values = names.iter().map(|name| format!("<{name}>"));
    let values = values.collect::<Vec<_>>().join(" ");
    if argument.is_positional() {
        return format!("`{values}`");
    }
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let aliases = argument.get_visible_aliases().unwrap_or_default();
    let aliases = aliases.into_iter().map(|alias| format!("--{alias}"));
    let names: Vec<String> = short.into_iter().chain(long).chain(aliases).collect();
    let names = names.join("`, `");
    if !matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) {
        return format!("`{names}`");
    }
    match (argument.is_require_equals_set(), argument.get_num_args()) {
        (true, Some(count)) if count.min_values() == 0 => format!("`{names}[={values}]`"),
        _ => format!("`{names} {values}`"),
    }
}

/// Returns what an argument means, and all that may be said instead of it.
fn explained(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string);
    let mut text = help.unwrap_or_default().replace('*', "\\*");
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let possible = argument.get_possible_values();
    let described = possible.iter().filter(|value| !value.is_hide_set());
    let described: Vec<String> = described.map(possible_value).collect();
    if takes_value && !described.is_empty() && !argument.is_hide_possible_values_set() {
        let _ = write!(text, ": {}", described.join(", "));
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if takes_value && !defaults.is_empty() {
        let _ = write!(text, "; `{}` when absent", defaults.join(","));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(text, "; `{}`", variable.to_string_lossy());
    }
    text
}

fn possible_value(value: &PossibleValue) -> String {
    match value.get_help() {
        Some(help) => format!("`{}` ({help})", value.get_name()),
        None => format!("`{}`", value.get_name()),
    }
}

/// `UPDATE_SNAPSHOTS=1 cargo test -p gangline reference` writes the file anew.
#[test]
fn the_reference_is_what_the_command_takes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, page()).expect("to write it");
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        page(),
        "docs/cli.md has drifted: UPDATE_SNAPSHOTS=1 cargo test -p gangline reference"
    );
}
