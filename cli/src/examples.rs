//! Every line that shows the command, in its own help and in the documents, is one that it takes.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use crate::Args;

/// Calls `found` with each command that has no further ones, and its words, as `token create`.
pub(crate) fn each_command(found: &mut dyn FnMut(&[String], &clap::Command)) {
    fn go(
        path: &mut Vec<String>,
        command: &clap::Command,
        found: &mut dyn FnMut(&[String], &clap::Command),
    ) {
        let further = command.get_subcommands();
        let mut further = further.filter(|command| command.get_name() != "help");
        let Some(first) = further.next() else {
            return found(path, command);
        };
        for command in std::iter::once(first).chain(further) {
            path.push(command.get_name().to_owned());
            go(path, command, found);
            path.pop();
        }
    }
    let mut command = Args::command();
    command.build();
    go(&mut Vec::new(), &command, found);
}

/// Returns the words of each call of the command in a line of a shell.
fn calls(line: &str) -> Vec<Vec<String>> {
    let parted = line.replace("<(", "| ").replace("$(", "| ");
    let words = shlex::split(&parted).unwrap_or_else(|| panic!("no words: {line}"));
    let ends = |word: &String| {
        matches!(
            word.as_str(),
            "|" | "&&" | "||" | ";" | "&" | ">" | ">>" | "2>" | "<" | "\\"
        ) || word.ends_with([';', ')'])
    };
    words
        .split_inclusive(ends)
        .filter_map(|part| {
            let begin = part.iter().position(|word| word == "gangline")?;
            let assigned = part[..begin].iter().all(|word| word.contains('='));
            let mut words = part[begin..].to_vec();
            let last = words.last_mut()?;
            if ends(last) {
                *last = last.trim_end_matches([';', ')']).to_owned();
                if !last.chars().any(char::is_alphanumeric) {
                    words.pop();
                }
            }
            assigned.then_some(words)
        })
        .collect()
}

fn parse(words: &[String]) -> Result<(), String> {
    match Args::try_parse_from(words) {
        Ok(_) => Ok(()),
        Err(error) if !error.use_stderr() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_help_of_every_command_ends_with_examples_that_it_takes() {
    let mut commands = 0;
    each_command(&mut |path, command| {
        let help = command.get_after_help();
        let help = help.unwrap_or_else(|| panic!("{path:?} has no examples"));
        let help = help.to_string();
        let mut lines = help.lines();
        assert_eq!(lines.next(), Some("Examples:"), "{path:?}");
        let mut own = 0;
        for line in lines.take_while(|line| !line.is_empty()) {
            assert!(
                line.starts_with("  ") && line.len() <= 100,
                "{path:?}: {line}"
            );
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            let calls = calls(line);
            assert!(!calls.is_empty(), "{path:?} is not called by: {line}");
            for call in calls {
                parse(&call).unwrap_or_else(|error| panic!("{line}\n{error}"));
                own += usize::from(call[1..].starts_with(path));
            }
        }
        assert!(own > 0, "{path:?}");
        commands += 1;
    });
    assert!(commands >= 24, "{commands}");
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = glob::glob(root.join("docs/*.md").to_str().expect("UTF-8")).expect("a pattern");
    let mut pages: Vec<PathBuf> = pages.map(|page| page.expect("a page")).collect();
    pages.push(root.join("README.md"));
    pages
}

/// Those that a test runs are in blocks that show a terminal; this is about the others.
#[test]
fn every_call_that_a_document_shows_without_its_output_is_one_that_the_command_takes() {
    let mut shown = 0;
    for page in documents() {
        let text = std::fs::read_to_string(&page).expect("a page");
        let blocks = text
            .split("\n```")
            .filter_map(|block| block.strip_prefix("sh\n"));
        for line in blocks.flat_map(|block| {
            block
                .replace("\\\n", " ")
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        }) {
            let line = line.split(" # ").next().unwrap_or_default();
            for call in calls(line) {
                shown += 1;
                if let Err(error) = parse(&call) {
                    panic!("{}: {line}\n{error}", page.display());
                }
            }
        }
    }
    assert!(shown > 0);
}
