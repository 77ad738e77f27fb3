//! Searches numbers whose SHA-256 begins with zeros; the first worker that finds one ends the
//! search for all.

use std::process::ExitCode;

use gangline_worker::{HandlerError, Item, StopOutcome, Worker};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Numbers between two looks at whether the search is over.
const LOOK_EACH: u64 = 4_096;

/// What was looked for.
#[derive(Debug, Serialize)]
struct Found {
    number: u64,
    sha256: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (zeros, block) = match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(Ok(zeros)), None, None) => (zeros, 1_000_000),
        (Some(Ok(zeros)), Some(Ok(block)), None) if block > 0 => (zeros, block),
        _ => return usage(),
    };
    Worker::from_env()
        .run_blocking(move |item: Item<u64>| look_through(&item, zeros, block))
        .await
}

/// Looks through one block of numbers; item `n` is the `n`-th block, from 1.
fn look_through(item: &Item<u64>, zeros: u64, block: u64) -> Result<Option<Found>, HandlerError> {
    let first = item.payload.saturating_sub(1).saturating_mul(block);
    for number in first..first.saturating_add(block) {
        if number % LOOK_EACH == 0 && item.is_cancelled() {
            return Err("the search is over".into());
        }
        let hash = Sha256::digest(number.to_string().as_bytes());
        let sha256: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        if sha256.bytes().take_while(|digit| *digit == b'0').count() as u64 >= zeros {
            // Recorded in one step with the result: from here on nobody starts another block, and
            // whoever is in the middle of one is told to stop.
            item.stop(StopOutcome::Success);
            return Ok(Some(Found { number, sha256 }));
        }
    }
    Ok(None)
}

#[expect(clippy::print_stderr, reason = "this is how a program says its usage")]
fn usage() -> ExitCode {
    eprintln!("usage: search ZEROS [NUMBERS_A_BLOCK], as in: search 6");
    ExitCode::from(2)
}
