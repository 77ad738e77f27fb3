//! `gangline run --demo`: an ordinary run on made-up items, in which a worker is killed.

use std::path::PathBuf;

use clap::Parser;
use gangline_worker::Client;
use gangline_worker::protocol::{Certificate, QueueName};

use super::{Args, report};
use crate::error::Error;
use crate::output;

/// The program of the items. One of them, far from the start, kills the worker that has started
/// it; the directory that it makes first sees to it that no other does.
const PROGRAM: &str = "sleep 0.$(( $1 % 3 + 1 ))
if [ \"$1\" -gt 60 ] && mkdir \"$2\" 2>/dev/null; then kill -KILL $PPID; fi";

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// A demonstration under way.
#[derive(Debug)]
pub(super) struct Demo {
    /// Is there once the worker has been killed.
    mark: PathBuf,
}

/// Puts the arguments of the demonstration in the place of `--demo`.
pub(super) fn prepare(args: Args) -> Result<(Args, Option<Demo>), Error> {
    if !args.demo {
        return Ok((args, None));
    }
    let mark = std::env::temp_dir().join(format!("gangline-demo-{}", std::process::id()));
    let mut words: Vec<_> = ["run", "--range=1..200", "-j4", "--workers=2"]
        .map(Into::into)
        .into();
    words.extend(["--", "sh", "-c", PROGRAM, "sh", "{}"].map(Into::into));
    words.push(mark.clone().into_os_string());
    let dashboard = args.dashboard;
    let Line { args } = Line::try_parse_from(words).map_err(Error::usage)?;
    output::note("gangline: 200 made-up items, two workers; one of them will be killed");
    Ok((Args { dashboard, ..args }, Some(Demo { mark })))
}

impl Demo {
    /// Says what the certificate and the results say.
    pub(super) async fn conclude(
        self,
        client: &Client,
        queue: &QueueName,
        certificate: &Certificate,
    ) -> Result<(), Error> {
        let killed = match std::fs::remove_dir(&self.mark) {
            Ok(()) => "one worker was killed on the way",
            Err(_) => "no worker was killed",
        };
        let again = report::done_again(client, queue).await?;
        let (done, total) = (certificate.counts.done, certificate.counts.total());
        let lost = match total - done {
            0 => "nothing lost".to_owned(),
            missing => format!("{missing} LOST"),
        };
        output::note(format_args!(
            "{lost}: {done} of {total} done, {killed}; {again} items that it held were done by another"
        ));
        Ok(())
    }
}
