//! `docs/troubleshooting.md` shows every command, and what each says comes with what helps.

use gangline_tests::gangline::commands;

use super::page::{Page, Shown};

fn shown() -> Vec<Shown> {
    let page = Page::read("troubleshooting.md");
    let terminals = page
        .sections
        .into_iter()
        .flat_map(|section| section.terminals);
    terminals.flat_map(|terminal| terminal.commands).collect()
}

#[test]
fn every_error_has_a_hint() {
    let mut errors = 0;
    for Shown { command, lines } in shown() {
        let starts = |start: &str| lines.iter().any(|line| line.starts_with(start));
        if lines
            .iter()
            .any(|line| line.starts_with("gangline: token "))
        {
            continue;
        }
        if starts("gangline: ") {
            assert!(starts("hint: "), "{command}: {lines:?}");
            errors += 1;
        }
        if starts("error: ") {
            assert!(starts("For more information, try '--help'."), "{command}");
            errors += 1;
        }
    }
    assert!(errors > 60, "{errors}");
}

#[tokio::test]
async fn every_command_is_called_wrongly() {
    let shown = shown();
    for command in commands().await {
        let call = format!("gangline {command}");
        let is_called = shown.iter().any(|shown| shown.command.contains(&call));
        assert!(
            is_called,
            "docs/troubleshooting.md has no mistake with {call}"
        );
    }
}
