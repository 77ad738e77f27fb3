//! `gangline cancel`: items that are wanted no more.

use gangline_worker::protocol::{ItemId, ItemState};

use super::{Target, examples};
use crate::error::{Error, Kind};
use crate::output;

/// Arguments of `gangline cancel`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CANCEL)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// The items, as gangline get items shows them
    #[arg(required = true, value_name = "ID", help_heading = None::<&str>)]
    ids: Vec<u64>,
}

impl Args {
    pub(super) async fn run(self) -> Result<(), Error> {
        let Self { target, ids } = self;
        let (client, queue) = target.open()?;
        let mut done = Vec::new();
        for id in ids {
            let item = client.cancel(&queue, ItemId(id)).await?;
            match item.state {
                ItemState::Cancelled => output::note(format_args!("{queue}: item {id} cancelled")),
                _ => done.push(id.to_string()),
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        let text = format!(
            "{queue}: done already, and not cancelled: {}",
            done.join(", ")
        );
        Err(Error::new(Kind::Failed, text)
            .hint(format!("gangline results {queue} has what came of them")))
    }
}
