//! Runs what the terminals of a page show.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gangline_tests::gangline::built;
use tokio::process::Command;

use super::page::{Section, Shown, Terminal, fits};

/// How long the commands of one block may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Parts the output of one command from that of the next.
const MARK: &str = "==== next command ====";
/// Programs that a page may use and a machine may lack.
const PROGRAMS: [&str; 6] = ["kubectl", "curl", "redis-server", "python3", "jq", "man"];

/// Variables of a shell.
pub(super) type Environment = Vec<(String, String)>;

/// What came of a section.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) differ: Vec<Difference>,
    /// Programs that are not on this machine.
    pub(super) missing: Vec<&'static str>,
}

/// A command that prints what the page does not.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) shown: Shown,
    pub(super) printed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, printed } = self;
        write!(f, "--- the page:\n{shown}--- printed:\n{printed}")
    }
}

impl Terminal {
    /// Whether it speaks of a cluster that stays.
    pub(super) fn needs_kubectl(&self) -> bool {
        self.uses("kubectl")
    }

    /// Whether one of its commands has this in it.
    pub(super) fn uses(&self, text: &str) -> bool {
        let mut commands = self.commands.iter();
        commands.any(|shown| shown.command.contains(text))
    }

    fn missing(&self) -> Vec<&'static str> {
        let uses = |program: &&str| {
            let is_part = |c: char| !(c.is_alphanumeric() || c == '-' || c == '_');
            let mut commands = self.commands.iter();
            commands.any(|shown| shown.command.split(is_part).any(|word| word == *program))
        };
        let missing = |program: &&str| !is_installed(program);
        PROGRAMS.into_iter().filter(uses).filter(missing).collect()
    }

    /// Runs the commands in one shell, and returns those that print what the page does not.
    async fn run(&self, dir: &Path, environment: &Environment) -> Vec<Difference> {
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
        let output = output.unwrap_or_else(|_| panic!("not done within {PATIENCE:?}: {self:?}"));
        let printed = String::from_utf8(output.unwrap().stdout).unwrap();
        let mark = format!("{MARK}\n");
        let parts = printed.split(&mark).map(without_progress);
        self.commands
            .iter()
            .zip(parts)
            .filter(|(shown, part)| !fits(&shown.lines, part, self.any_order))
            .map(|(shown, printed)| Difference {
                shown: shown.clone(),
                printed,
            })
            .collect()
    }
}

/// Drops the lines that only a run of more than five seconds writes, as on a busy machine.
fn without_progress(printed: &str) -> String {
    let is_progress = |line: &&str| line.contains(" items, ") && line.contains(" leased");
    let lines = printed.split_inclusive('\n');
    lines.filter(|line| !is_progress(line)).collect()
}

impl Section {
    /// Runs its terminals in a directory, but for those whose programs are missing.
    pub(super) async fn run(
        &self,
        dir: &Path,
        environment: impl Fn(&Terminal) -> Environment,
    ) -> Outcome {
        for (name, text) in &self.files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let mut outcome = Outcome::default();
        for terminal in &self.terminals {
            let missing = terminal.missing();
            if missing.is_empty() {
                let differ = terminal.run(dir, &environment(terminal)).await;
                outcome.differ.extend(differ);
            } else {
                outcome.missing.extend(missing);
            }
        }
        outcome
    }
}

pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The environment of somebody with `gangline` in the `PATH` and nothing else of it.
pub(super) fn environment(home: &Path) -> Environment {
    let mut path: Vec<PathBuf> = vec![built("gangline").parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let path = std::env::join_paths(path).unwrap().into_string().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = root.join("worker-sdk/python/src");
    let home = home.to_str().unwrap();
    [
        ("PATH", path.as_str()),
        ("HOME", home),
        ("XDG_STATE_HOME", home),
        ("PYTHONPATH", python.to_str().unwrap()),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("LC_ALL", "C.UTF-8"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
