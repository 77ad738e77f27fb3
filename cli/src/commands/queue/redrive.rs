//! `gangline redrive`: another life for dead items.

use gangline_worker::protocol::limits::PAGE_ROWS_MAX;
use gangline_worker::protocol::{ItemId, QueueName, RedriveRequest};

use super::{Target, examples};
use crate::commands::shown::items;
use crate::error::Error;
use crate::output;

/// Arguments of `gangline redrive`. All dead items when none are chosen
#[derive(Debug, clap::Args)]
#[command(after_help = examples::REDRIVE)]
pub(crate) struct Args {
    /// Only this item; may be given many times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<u64>,
    /// Only those that died of this error: theirs differ in numbers and quoted texts only
    #[arg(long, value_name = "TEXT")]
    error: Option<Box<str>>,
    /// Only those whose error has this text in it
    #[arg(long, value_name = "TEXT")]
    contains: Option<Box<str>>,
    /// At most so many
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Push copies into this queue instead; a queue that is over allows only that. What is there
    /// already is not added again
    #[arg(long, value_name = "QUEUE")]
    into: Option<QueueName>,
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Error> {
        let Self {
            target,
            ids,
            error,
            contains,
            max,
            into,
        } = self;
        if ids.len() > PAGE_ROWS_MAX {
            let text = format!("--id: at most {PAGE_ROWS_MAX}, got {}", ids.len());
            return Err(Error::usage(text));
        }
        let (client, queue) = target.open()?;
        let ids = (!ids.is_empty()).then(|| ids.into_iter().map(ItemId).collect());
        let mut request = RedriveRequest {
            ids,
            error,
            contains,
            max,
            into,
            cursor: ItemId::default(),
        };
        let (mut redriven, mut duplicates) = (0, 0);
        let is_more = loop {
            let reply = client.redrive(&queue, &request).await?;
            redriven += reply.redriven;
            duplicates += reply.duplicates;
            request.max = max.map(|max| max.saturating_sub(redriven + duplicates));
            match reply.next {
                Some(next) if request.max != Some(0) => request.cursor = next,
                next => break next.is_some(),
            }
        };
        let items = items(redriven);
        let more = if is_more { "; there are more" } else { "" };
        match &request.into {
            None => output::note(format_args!("{queue}: {items} ready again{more}")),
            Some(into) => output::note(format_args!(
                "{queue}: {items} copied into {into}, {duplicates} were there before{more}"
            )),
        }
        Ok(())
    }
}
