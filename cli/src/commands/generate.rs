//! What shells and `man` want to know of this command, made from its own arguments.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::examples;
use crate::error::Error;
use crate::output;

/// Arguments of `gangline completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete commands
    shell: Shell,
}

/// Arguments of `gangline man`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::MAN)]
pub(crate) struct ManArgs {
    /// Directory for the pages of all commands; made if there is none
    dir: Option<PathBuf>,
}

/// Writes what the shell is to source.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut crate::Args::command(),
        "gangline",
        &mut script,
    );
    output::data(&script)
        .map_err(|error| Error::disk(format!("cannot write to stdout: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of the command itself, or those of all commands into a directory.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Error> {
    let mut command = crate::Args::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else {
        let written = page(&command).and_then(|(_, page)| output::data(&page));
        written.map_err(|error| Error::disk(format!("cannot write to stdout: {error}")))?;
        return Ok(ExitCode::SUCCESS);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| pages(&command, dir));
    let pages = written.map_err(|error| {
        Error::disk(format!("cannot write to {}: {error}", dir.display()))
            .hint("gangline man DIR takes a directory that this user may write to")
    })?;
    output::note(format_args!("{pages} pages in {}", dir.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages of a command and those below it, and returns how many.
fn pages(command: &clap::Command, dir: &Path) -> io::Result<usize> {
    let (name, text) = page(command)?;
    std::fs::write(dir.join(name), text)?;
    let below = command.get_subcommands();
    below
        .map(|command| pages(command, dir))
        .try_fold(1, |sum, pages| Ok(sum + pages?))
}

/// Returns a page and the name of its file.
fn page(command: &clap::Command) -> io::Result<(String, Vec<u8>)> {
    let after = command.get_after_help().map(ToString::to_string);
    let source = concat!("gangline ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("Gangline");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    for part in after.iter().flat_map(|after| after.split("\n\n")) {
        page.write_all(&as_section(part))?;
    }
    Ok((man.get_filename(), page))
}

/// Returns a part that begins with `Title:` as a section whose lines stay as they are.
fn as_section(part: &str) -> Vec<u8> {
    let (title, text) = part.split_once(':').unwrap_or((part, ""));
    let mut roff = Roff::default();
    roff.control("SH", [title.to_uppercase().as_str()])
        .control("nf", []);
    for line in text.trim_matches('\n').lines() {
        roff.text([roman(line.trim_start())]);
    }
    roff.control("fi", []);
    roff.render().into_bytes()
}
