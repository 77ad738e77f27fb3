//! `docs/jobs.md`, `docs/kubectl.md` and the README of the examples from Kubernetes' documentation: every
//! manifest and every command in them, run as they stand.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use gangline_tests::Up;
use gangline_tests::gangline::built;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const GUIDE: &str = "jobs.md";
const KUBECTL: &str = "kubectl.md";
/// Its commands are for manifests that lie beside it.
const EXAMPLES: &str = "../examples/kubernetes-docs/README.md";
/// Sections of the guide that run at a time: most of them wait most of the time.
const SECTIONS_AT_A_TIME: usize = 4;
/// How long the commands of one block may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Parts the output of one command from that of the next.
const MARK: &str = "==== next command ====";
/// Stands in the guide for what differs from run to run.
const ANYTHING: char = '…';
/// Says that the lines after each command of the next block may come in any order.
const ANY_ORDER: &str = "<!-- any order -->";

/// What stands under one heading.
#[derive(Debug, Default)]
struct Section {
    title: String,
    /// Names and texts of these and of other files.
    manifests: Vec<(String, String)>,
    terminals: Vec<Terminal>,
}

/// A block that shows a terminal.
#[derive(Debug, Default)]
struct Terminal {
    any_order: bool,
    commands: Vec<Shown>,
}

/// A command, and what is printed after it.
#[derive(Debug)]
struct Shown {
    command: String,
    lines: Vec<String>,
}

fn path(document: &str) -> PathBuf {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    docs.join(document)
}

/// The files beside a document, of which `docs` has none that commands are for.
fn files_beside(document: &str) -> Vec<(String, String)> {
    let path = path(document);
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .filter(|path| path.to_string_lossy().contains(".yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn sections(document: &str) -> Vec<Section> {
    let text = std::fs::read_to_string(path(document)).unwrap();
    let mut sections = vec![Section::default()];
    let mut any_order = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let section = sections.last_mut().unwrap();
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match language {
                "yaml" | "toml" => section.manifests.push(manifest(&block)),
                "console" => section.terminals.push(Terminal {
                    any_order: std::mem::take(&mut any_order),
                    commands: commands(&block),
                }),
                "sh" => {}
                other => panic!("{}: what is a block of {other:?}?", section.title),
            }
        } else if line == ANY_ORDER {
            any_order = true;
        } else if line.starts_with("##") {
            let title = line.trim_start_matches(['#', ' ']).to_owned();
            sections.push(Section {
                title,
                ..Section::default()
            });
        }
    }
    sections
}

fn manifest(block: &[&str]) -> (String, String) {
    let name = block[0].strip_prefix("# ");
    let name = name.unwrap_or_else(|| panic!("no name in the first line of {block:?}"));
    (name.to_owned(), block.join("\n") + "\n")
}

fn commands(block: &[&str]) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Shown {
                command: command.to_owned(),
                lines: Vec::new(),
            }),
            (None, Some(last)) => last.lines.push((*line).to_owned()),
            (None, None) => panic!("no command before {line:?}"),
        }
    }
    commands
}

impl Terminal {
    fn needs_kubectl(&self) -> bool {
        self.commands
            .iter()
            .any(|shown| shown.command.contains("kubectl"))
    }

    /// Runs the commands in one shell, and says where it prints what the guide does not.
    async fn run(&self, dir: &Path, environment: &[(String, String)]) -> Result<(), String> {
        let mut script =
            format!("exec 2>&1 </dev/null\nmark() {{ local c=$?; echo '{MARK}'; return $c; }}\n");
        for shown in &self.commands {
            script += &format!("{}\nmark\n", shown.command);
        }
        let mut bash = Command::new("bash");
        bash.args(["-c", &script])
            .current_dir(dir)
            .envs(environment.iter().cloned())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, bash.output()).await;
        let output = output.map_err(|_| format!("not done within {PATIENCE:?}: {self:?}"))?;
        let printed = String::from_utf8(output.unwrap().stdout).unwrap();
        let parts: Vec<&str> = printed.split(&format!("{MARK}\n")).collect();
        let differ: Vec<String> = self
            .commands
            .iter()
            .zip(parts)
            .filter(|(shown, part)| !fits(&shown.lines, part, self.any_order))
            .map(|(shown, part)| {
                let (command, lines) = (&shown.command, shown.lines.join("\n"));
                format!("$ {command}\n--- the document:\n{lines}\n--- printed:\n{part}")
            })
            .collect();
        if differ.is_empty() {
            Ok(())
        } else {
            Err(differ.join("\n"))
        }
    }
}

fn fits(shown: &[String], printed: &str, any_order: bool) -> bool {
    let mut printed: Vec<&str> = printed.lines().collect();
    if printed.len() != shown.len() {
        return false;
    }
    if !any_order {
        return shown.iter().zip(printed).all(|(a, b)| line_fits(a, b));
    }
    // Those that leave least open choose first.
    let mut shown: Vec<&String> = shown.iter().collect();
    shown.sort_by_key(|line| std::cmp::Reverse(line.replace(ANYTHING, "").len()));
    shown.into_iter().all(|line| {
        let place = printed.iter().position(|other| line_fits(line, other));
        place.map(|place| printed.swap_remove(place)).is_some()
    })
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

/// Ends what is left in the cluster, which would outlive it, and then the cluster.
async fn stop(up: Up, environment: &[(String, String)]) {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["delete", "job", "--all", "--cascade=foreground"]);
    let deleted = kubectl.envs(environment.iter().cloned()).output().await;
    assert!(deleted.unwrap().status.success());
    up.stop().await;
}

/// The environment of somebody with `gangline` in the `PATH` and nothing else of it.
fn environment(home: &Path) -> Vec<(String, String)> {
    let mut path: Vec<PathBuf> = vec![built("gangline").parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let path = std::env::join_paths(path).unwrap().into_string().unwrap();
    let home = home.to_str().unwrap();
    [
        ("PATH", path.as_str()),
        ("HOME", home),
        ("XDG_STATE_HOME", home),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

async fn run_section(
    section: &Section,
    dir: &Path,
    alone: &[(String, String)],
    up: Option<&[(String, String)]>,
) -> Vec<String> {
    for (name, text) in &section.manifests {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let mut failures = Vec::new();
    for terminal in &section.terminals {
        let environment = match (terminal.needs_kubectl(), up) {
            (true, None) => continue,
            (true, Some(up)) => up,
            (false, _) => alone,
        };
        if let Err(differs) = terminal.run(dir, environment).await {
            failures.push(format!("## {}\n{differs}", section.title));
        }
    }
    failures
}

async fn is_missing(program: &str) -> bool {
    let mut command = Command::new(program);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_err()
}

#[tokio::test]
async fn every_command_of_the_guide_prints_what_it_shows() {
    run_document(GUIDE, SECTIONS_AT_A_TIME).await;
}

#[tokio::test]
async fn every_command_of_kubectl_prints_what_it_shows() {
    // They list all that there is.
    run_document(KUBECTL, 1).await;
}

#[tokio::test]
async fn every_command_of_the_examples_prints_what_it_shows() {
    run_document(EXAMPLES, 1).await;
}

#[expect(clippy::print_stderr, reason = "what is skipped is said")]
async fn run_document(document: &str, sections_at_a_time: usize) {
    let home = tempfile::tempdir().unwrap();
    let alone = environment(home.path());
    let (mut up, mut with_up) = (None, None);
    if is_missing("kubectl").await {
        eprintln!("SKIPPED: what docs/{document} shows of kubectl; there is none on this machine");
    } else {
        let started = Up::start(&home.path().join("up")).await;
        with_up = Some([alone.clone(), started.exports().to_vec()].concat());
        up = Some(started);
    }
    let slots = Arc::new(Semaphore::new(sections_at_a_time));
    let mut running = JoinSet::new();
    let files = files_beside(document);
    for mut section in sections(document) {
        section.manifests.extend(files.clone());
        let (slots, alone, with_up) = (slots.clone(), alone.clone(), with_up.clone());
        running.spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            let dir = tempfile::tempdir().unwrap();
            run_section(&section, dir.path(), &alone, with_up.as_deref()).await
        });
    }
    let failures = running.join_all().await.concat();
    if let (Some(up), Some(environment)) = (up, with_up) {
        stop(up, &environment).await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_manifest_of_the_guide_is_run() {
    let guide = sections(GUIDE);
    let manifests: usize = guide.iter().map(|section| section.manifests.len()).sum();
    assert!(manifests > 40, "{manifests}");
    let mut examples = Section::default();
    for section in sections(EXAMPLES) {
        examples.terminals.extend(section.terminals);
    }
    examples.manifests = files_beside(EXAMPLES);
    assert!(examples.manifests.len() > 9, "{:?}", examples.manifests);
    for section in guide.into_iter().chain(sections(KUBECTL)).chain([examples]) {
        for (name, _) in &section.manifests {
            let mut commands = section
                .terminals
                .iter()
                .flat_map(|terminal| &terminal.commands);
            let is_run = commands.any(|shown| shown.command.contains(name.as_str()));
            assert!(is_run, "nothing under {:?} runs {name}", section.title);
        }
    }
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
    for section in sections(KUBECTL) {
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubectl.md");
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
