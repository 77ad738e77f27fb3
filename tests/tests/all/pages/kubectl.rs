//! The list of commands in `docs/kubectl.md`, made from what the page shows.

use super::page::{Page, Shown, docs};

const KUBECTL: &str = "kubectl.md";
/// Where the list of commands stands in `docs/kubectl.md`.
const LIST: [&str; 2] = ["<!-- the commands -->\n", "<!-- their end -->\n"];

/// The command of `kubectl` in a line of a shell, as `create job`.
fn verb(command: &str) -> Option<String> {
    let (_, words) = command.split_once("kubectl ")?;
    let mut words = words.split(' ').skip_while(|word| word.starts_with('-'));
    let mut first = words.next()?;
    if first == "demo" {
        // The namespace that a flag names.
        first = words.next()?;
    }
    let second = words.next().filter(|word| !word.starts_with('-'));
    Some(match (first, second) {
        ("create" | "auth", Some(second)) => format!("{first} {second}"),
        _ => first.to_owned(),
    })
}

/// What each command of the document came to, as a table.
fn list_of_commands() -> String {
    let mut outcomes = std::collections::BTreeMap::<String, [usize; 2]>::new();
    for section in Page::read(KUBECTL).sections {
        let shown = section
            .terminals
            .iter()
            .flat_map(|terminal| &terminal.commands);
        for Shown { command, lines } in shown {
            let is_refusal = |line: &String| {
                line.starts_with("error: ")
                    || line.starts_with("Error from server ")
                    || line.contains(" is invalid: ")
            };
            if let Some(verb) = verb(command) {
                let refused = usize::from(lines.iter().any(is_refusal));
                outcomes.entry(verb).or_default()[refused] += 1;
            }
        }
    }
    let mut table = "| command | works | is refused |\n| --- | --- | --- |\n".to_owned();
    for (verb, counts) in outcomes {
        let [works, refused] = counts.map(|count| match count {
            0 => String::new(),
            count => format!("{count} ×"),
        });
        table += &format!("| `{verb}` | {works} | {refused} |\n");
    }
    table
}

/// `UPDATE_SNAPSHOTS=1 cargo test -p gangline-tests list_of_commands` writes it anew.
#[test]
fn the_list_of_commands_of_kubectl_is_what_the_document_shows() {
    let path = docs().join(KUBECTL);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(LIST[0]).unwrap();
    let (list, after) = rest.split_once(LIST[1]).unwrap();
    let wanted = list_of_commands();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let text = format!("{before}{}{wanted}{}{after}", LIST[0], LIST[1]);
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(
        list, wanted,
        "docs/kubectl.md has drifted: UPDATE_SNAPSHOTS=1 cargo test -p gangline-tests list_of_commands"
    );
}
