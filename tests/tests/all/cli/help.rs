//! What the command says of itself: help, completions, manual pages.

use std::collections::HashSet;
use std::path::Path;

use gangline_tests::gangline::{built, commands, gangline, run};
use tokio::process::Command;

/// `UPDATE_SNAPSHOTS=1 cargo test -p gangline-tests --test all help::` writes the file anew.
#[tokio::test]
async fn the_help_of_every_command_is_as_it_was() {
    let mut all = String::new();
    for name in [String::new()].into_iter().chain(commands().await) {
        let mut command = gangline(&name.split_whitespace().collect::<Vec<_>>());
        let left = run(command.arg("--help").env_remove("COLUMNS")).await;
        assert_eq!((left.code, &*left.stderr), (Some(0), ""), "{name}");
        all += &format!("$ gangline {name} --help\n{}\n", left.stdout);
    }
    let all: Vec<&str> = all.lines().map(str::trim_end).collect();
    let all = all.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/cli/help.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        wanted, all,
        "help.txt has drifted: UPDATE_SNAPSHOTS=1 cargo test -p gangline-tests --test all help::"
    );
}

/// Returns what bash offers for the last of these words.
async fn completed(words: &str) -> Vec<String> {
    let script = format!(
        "source <(\"$GANGLINE\" completions bash) || exit
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        complete -p gangline > /dev/null || exit
        _gangline gangline \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"
        printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &script])
        .env("GANGLINE", built("gangline"));
    let output = bash.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    assert_eq!(completed("gangline pu").await, ["push"]);
    assert_eq!(completed("gangline token re").await, ["revoke"]);
    assert_eq!(completed("gangline wait --max").await, ["--max-dead-items"]);
    assert_eq!(completed("gangline stop q --outcome s").await, ["success"]);
}

#[tokio::test]
async fn every_shell_gets_a_script_with_every_command() {
    let commands = commands().await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let left = run(&mut gangline(&["completions", shell])).await;
        assert_eq!((left.code, &*left.stderr), (Some(0), ""), "{shell}");
        for command in &commands {
            let last = command.split(' ').next_back().unwrap();
            assert!(left.stdout.contains(last), "{shell} lacks {command}");
        }
    }
}

#[tokio::test]
async fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("new/man1");
    let left = run(&mut gangline(&["man", pages.to_str().unwrap()])).await;
    assert_eq!((left.code, &*left.stdout), (Some(0), ""), "{}", left.stderr);
    let written = std::fs::read_dir(&pages).unwrap();
    let mut written: HashSet<String> = written
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in [String::new(), "token".to_owned()]
        .into_iter()
        .chain(commands().await)
    {
        let name = format!("gangline {name}");
        let file = format!("{}.1", name.trim().replace(' ', "-"));
        assert!(written.remove(&file), "{file} is missing");
        let text = std::fs::read_to_string(pages.join(&file)).unwrap();
        // As man(7) wants it; what an index of pages is made from is in NAME.
        for part in [
            ".TH gangline",
            ".SH NAME\n",
            ".SH SYNOPSIS\n",
            ".SH DESCRIPTION\n",
        ] {
            assert!(text.contains(part), "{file} lacks {part}");
        }
        if name != "gangline token" {
            assert!(text.contains(".SH EXAMPLES\n.nf\n"), "{file}");
        }
        is_clean(&pages.join(&file)).await;
    }
    assert!(written.is_empty(), "{written:?}");
}

/// Lets groff read a page, where there is one, which says what it does not understand.
async fn is_clean(page: &Path) {
    let mut groff = Command::new("groff");
    groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page);
    if let Ok(output) = groff.output().await {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{}: {said}",
            page.display()
        );
    }
}

#[tokio::test]
async fn without_a_directory_the_page_of_the_command_goes_to_stdout() {
    let left = run(&mut gangline(&["man"])).await;
    assert_eq!((left.code, &*left.stderr), (Some(0), ""));
    assert!(left.stdout.contains(".SH SUBCOMMANDS\n"), "{}", left.stdout);
}
