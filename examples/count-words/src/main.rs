//! Counts the words and lines of each file that it is given: a worker in one function.

use std::process::ExitCode;

use gangline_worker::{HandlerError, Item, Worker};
use serde::Serialize;

/// What is found out about one file.
#[derive(Debug, Serialize)]
struct Counted {
    path: String,
    lines: usize,
    words: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    Worker::from_env()
        .concurrency(8)
        .run(|item: Item<String>| count(item.payload))
        .await
}

async fn count(path: String) -> Result<Counted, HandlerError> {
    let text = match tokio::fs::read(&path).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // Any other error may be gone at the next attempt; a file that is not there stays away.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(HandlerError::permanent(format!("{path}: {error}")));
        }
        Err(error) => return Err(format!("{path}: {error}").into()),
    };
    Ok(Counted {
        lines: text.matches('\n').count(),
        words: text.split_whitespace().count(),
        path,
    })
}
