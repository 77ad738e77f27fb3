//! Tokens in a file of the data directory, for the embedded store.
//!
//! They are few and change rarely, so the file is written as a whole: a new one beside it, synced,
//! then put in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gangline_protocol::TokenId;
use serde::{Deserialize, Serialize};

use super::{Answer, Token, TokenStore};

/// The form of the file.
const VERSION: u32 = 1;

/// A file with all tokens.
#[derive(Debug, Clone)]
pub struct TokenFile {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    tokens: Vec<Token>,
}

impl TokenFile {
    /// Names the file `tokens.json` in a directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("tokens.json")
    }

    fn read(&self) -> io::Result<Vec<Token>> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let damaged = |what: String| {
            let text = format!("{} {what}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let Form { version, tokens } = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("is damaged: {error}")))?;
        if version == VERSION {
            Ok(tokens)
        } else {
            Err(damaged(format!("has the form {version}, not {VERSION}")))
        }
    }

    fn write(&self, tokens: Vec<Token>) -> io::Result<()> {
        let form = Form {
            version: VERSION,
            tokens,
        };
        let new = self.dir.join("tokens.json.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(&form)?)?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        File::open(&self.dir)?.sync_all()
    }

    /// Does what blocks where it holds up nobody.
    async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = self.clone();
        let done = tokio::task::spawn_blocking(move || act(&file));
        done.await.map_err(io::Error::other)?
    }
}

impl TokenStore for TokenFile {
    fn load(&self) -> Answer<'_, Vec<Token>> {
        Box::pin(self.aside(Self::read))
    }

    fn put<'a>(&'a self, _: &'a Token, all: Vec<Token>) -> Answer<'a, ()> {
        Box::pin(self.aside(|file| file.write(all)))
    }

    fn remove(&self, _: TokenId, all: Vec<Token>) -> Answer<'_, ()> {
        Box::pin(self.aside(|file| file.write(all)))
    }
}
